"""The score of the Numenta set: by hand, against all thresholds, and against what was published."""

import csv
import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.detection import nab, published
from benchmarks.detection.nab import OUTSIDE, Costs, Rows, Series
from benchmarks.detection.source import data_dir
from contracts.errors import OperatorMustActError
from tests.benchmarks import windowed_gaussian

STANDARD = Costs(1.0, 1.0, 0.11)
FOLDER = data_dir() / "nab"
with_data = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the data set is not at {FOLDER}")
# Short enough for a quick test, and with windows, alarms and false alarms of every kind.
SHORT_SERIES = (
    "realAdExchange/exchange-3_cpc_results.csv",
    "realAWSCloudwatch/iio_us-east-1_i-a2eb1cd9_NetworkIn.csv",
    "realKnownCause/rogue_agent_key_hold.csv",
    "realTraffic/TravelTime_451.csv",
    "realTraffic/occupancy_6005.csv",
    "realTraffic/occupancy_t4013.csv",
    "realTraffic/speed_7578.csv",
)


@functools.cache
def corpus() -> tuple[Series, ...]:
    return nab.read_corpus(FOLDER)


def sigmoid(position: float) -> float:
    return 2.0 / (1.0 + math.exp(5.0 * position)) - 1.0


def series(rows: int, *windows: tuple[int, int]) -> Series:
    return Series("s", np.zeros(rows), windows)


def test_the_worth_of_rows_is_what_the_rules_say() -> None:
    rows = nab.rows_of(series(100, (40, 49)))
    assert len(rows.worth) == 85  # 15 of probation
    worth = np.concatenate((np.full(15, np.nan), rows.worth))
    assert (worth[15:40] == -1.0).all()
    assert worth[40] == 1.0
    assert worth[44] == pytest.approx(sigmoid(-0.6) / sigmoid(-1.0))
    assert worth[49] == pytest.approx(sigmoid(-0.1) / sigmoid(-1.0))
    assert worth[50] == pytest.approx(sigmoid(1 / 9))
    assert worth[75] == pytest.approx(sigmoid(26 / 9))
    assert (worth[76:] == -1.0).all()
    assert (rows.window == np.where((np.arange(15, 100) >= 40) & (np.arange(15, 100) < 50), 0, OUTSIDE)).all()


@pytest.mark.parametrize(("rows", "probation"), [(1_127, 169), (4_032, 604), (5_000, 750), (22_695, 750)])
def test_probation_ends_after_15_percent_of_5000_rows_at_most(rows: int, probation: int) -> None:
    assert series(rows).probation_rows == probation


def test_a_series_counts_its_best_hits_its_misses_and_its_false_alarms() -> None:
    rows = nab.rows_of(series(200, (50, 59), (100, 109)))
    alarms = np.zeros(170, dtype=np.bool_)
    alarms[[40 - 30, 53 - 30, 57 - 30, 61 - 30]] = (
        True  # before, twice inside, just behind; the second window is missed
    )
    found = nab.outcome(rows, alarms, STANDARD)
    expected = sigmoid(-0.7) / sigmoid(-1.0) - 1.0 + 0.11 * (-1.0 + sigmoid(2 / 9))
    assert found.score == pytest.approx(expected)
    assert (found.hits, found.false_alarms, found.misses, found.calm) == (2, 2, 18, 148)
    assert nab.scaled(found.score, 2, STANDARD) == pytest.approx(100 * (expected + 2) / 4)
    assert nab.outcome(rows, alarms, Costs(1.0, 2.0, 0.11)).score == pytest.approx(expected - 1.0)


def test_nothing_told_is_0_and_the_first_row_of_every_window_100() -> None:
    rows = {"a": nab.rows_of(series(200, (50, 59), (100, 109))), "b": nab.rows_of(series(100))}
    quiet = {"a": np.zeros(170), "b": np.full(85, np.nan)}
    assert nab.corpus_score(rows, quiet, 0.5, STANDARD) == 0.0
    perfect = {"a": np.isin(np.arange(30, 200), (50, 100)).astype(float), "b": np.zeros(85)}
    assert nab.corpus_score(rows, perfect, 0.5, STANDARD) == 100.0
    assert nab.best_threshold(rows, perfect, STANDARD) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_best_threshold_is_the_best_of_all(data: st.DataObject) -> None:
    level = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, math.nan])
    rows, scores = {}, {}
    for name, windows in (("a", ((10, 14), (20, 29))), ("b", ()), ("c", ((0, 3), (30, 38)))):
        rows[name] = nab.rows_of(series(40, *windows))
        scores[name] = np.array(data.draw(st.lists(level, min_size=34, max_size=34)))
    found = nab.best_threshold(rows, scores, STANDARD)
    best = max(nab.corpus_score(rows, scores, level, STANDARD) for level in (0.0, 0.25, 0.5, 0.75, 1.0, math.inf))
    assert nab.corpus_score(rows, scores, found, STANDARD) == pytest.approx(best)


def write_set(folder: Path, windows: str, rows: str) -> None:
    (folder / "labels").mkdir()
    (folder / "data" / "g").mkdir(parents=True)
    (folder / "labels" / "combined_windows.json").write_text(windows)
    (folder / "data" / "g" / "a.csv").write_text(rows)


ROWS = "timestamp,value\n2014-01-01 00:00:00,1\n2014-01-01 00:05:00,2.5\n2014-01-01 00:05:00,3\n"


def test_a_series_is_read_with_its_windows_at_the_first_of_equal_times(tmp_path: Path) -> None:
    write_set(tmp_path, '{"g/a.csv": [["2014-01-01 00:05:00.000000", "2014-01-01 00:05:00.000000"]]}', ROWS)
    (one,) = nab.read_corpus(tmp_path)
    assert (one.name, one.values.tolist(), one.windows) == ("g/a.csv", [1.0, 2.5, 3.0], ((1, 1),))


@pytest.mark.parametrize(
    ("windows", "rows"),
    [
        ('{"g/a.csv": [["2014-01-01 00:07:00", "2014-01-01 00:05:00"]]}', ROWS),
        ('{"g/a.csv": [["2014-01-01 00:05:00"]]}', ROWS),
        ("[]", ROWS),
        ('{"g/a.csv": []}', "time,value\n"),
        ('{"g/a.csv": []}', "timestamp,value\n2014-01-01 00:00:00,one\n"),
    ],
)
def test_files_that_are_not_as_described_are_named(tmp_path: Path, windows: str, rows: str) -> None:
    write_set(tmp_path, windows, rows)
    with pytest.raises(OperatorMustActError, match=str(tmp_path)):
        nab.read_corpus(tmp_path)


@with_data
@pytest.mark.parametrize("profile", ["standard", "reward_low_FP_rate", "reward_low_FN_rate"])
def test_a_detector_that_never_alarms_has_its_published_counts(profile: str) -> None:
    costs = nab.read_profiles(FOLDER)[profile]
    table = published.read(FOLDER / "reference" / "per_file_scores" / f"null_{profile}.csv")
    for one in corpus():
        rows = nab.rows_of(one)
        assert nab.outcome(rows, np.zeros(len(rows.worth), dtype=np.bool_), costs) == table[one.name][1], one.name


@with_data
def test_the_judge_gives_its_published_scores() -> None:
    path = FOLDER / "reference" / "windowedGaussian_machine_temperature_system_failure.csv"
    rows = 8_000  # beyond the first window of 6,400
    with path.open(encoding="ascii", newline="") as lines:
        table = list(itertools.islice(csv.DictReader(lines), rows))
    values = np.array([float(row["value"]) for row in table])
    expected = np.array([float(row["anomaly_score"]) for row in table])
    np.testing.assert_allclose(windowed_gaussian.scores(values), expected, rtol=0, atol=1e-11)


@with_data
def test_the_judge_is_scored_as_published() -> None:
    short = [one for one in corpus() if one.name in SHORT_SERIES]
    alarms = {
        one.name: windowed_gaussian.scores(one.values)[one.probation_rows :] >= windowed_gaussian.PUBLISHED_THRESHOLD
        for one in short
    }
    for profile, costs in nab.read_profiles(FOLDER).items():
        table = published.read(FOLDER / "reference" / "per_file_scores" / f"windowedGaussian_{profile}.csv")
        for one in short:
            found, expected = nab.outcome(nab.rows_of(one), alarms[one.name], costs), table[one.name][1]
            assert found.score == pytest.approx(expected.score, abs=1e-9), (profile, one.name)
            assert (found.hits, found.false_alarms) == (expected.hits, expected.false_alarms), (profile, one.name)


@with_data
def test_published_scores_on_all_series_are_taken_together() -> None:
    rows = {one.name: nab.rows_of(one) for one in corpus()}
    found = published.scores_on(FOLDER, "standard", rows, STANDARD)
    assert found["null"] == 0.0
    assert found["windowedGaussian"] < found["numenta"] < found["ARTime"]


def test_rows_of_equal_score_are_alarmed_together() -> None:
    rows = Rows(np.array([-1.0, 1.0, -1.0]), np.array([OUTSIDE, 0, OUTSIDE]))
    worse = {"a": np.array([0.5, 0.5, 0.5])}
    dear = Costs(1.0, 1.0, 1.5)
    assert nab.best_threshold({"a": rows}, worse, dear) == math.inf
    assert nab.best_threshold({"a": rows}, {"a": np.array([0.4, 0.5, 0.4])}, dear) == 0.5
