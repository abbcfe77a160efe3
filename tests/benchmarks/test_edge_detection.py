"""The benchmark of the detectors: that it can be asked for, says what it misses, and keeps its promises on the sets."""

import functools
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.detection import nab, skab
from benchmarks.detection.source import DATA_DIR_VARIABLE, data_dir, set_dir
from contracts.errors import OperatorMustActError
from edge_agent.core.filter.level import LEVEL_ALARM, LevelShift
from edge_agent.core.filter.novelty import Novelty
from infra.setup.paths import repo_root

with_data = pytest.mark.skipif(
    not all((data_dir() / name).is_dir() for name in ("nab", "skab")), reason=f"the data sets are not at {data_dir()}"
)


def test_it_can_be_asked_for_by_name() -> None:
    assert "edge-detection" in program.names()
    assert "detection" not in program.names()


def test_sets_lie_beside_the_checkout_or_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    assert data_dir() == repo_root().parent / "shared" / "data"
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(OperatorMustActError, match=f"expected the folder {tmp_path / 'skab'}, found none"):
        set_dir("skab")


def test_without_the_sets_it_ends_with_a_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    assert program.main(["edge-detection"]) == 1
    assert f"name the folder of all sets in {DATA_DIR_VARIABLE}" in capsys.readouterr().err


@functools.cache
def corpus() -> tuple[nab.Series, ...]:
    return nab.read_corpus(data_dir() / "nab")


@functools.cache
def records() -> tuple[skab.Record, ...]:
    return skab.read_records(data_dir() / "skab")


@with_data
def test_the_level_detector_reaches_its_aim() -> None:
    rest = slice(skab.LEARN_ROWS, None)
    alarms = {one.name: LevelShift.start(8).advance(one.rows)[1] >= LEVEL_ALARM for one in records()}
    counts = skab.total(skab.count(one.anomaly[rest], alarms[one.name][rest]) for one in records())
    assert counts.f1 >= 0.76
    assert counts.false_alarm_rate <= 0.25


@with_data
def test_the_novelty_detector_reaches_its_aim() -> None:
    costs = nab.read_profiles(data_dir() / "nab")["standard"]
    rows = {one.name: nab.rows_of(one) for one in corpus()}
    scores = {one.name: Novelty.start().advance(one.values)[1][one.probation_rows :] for one in corpus()}
    assert nab.corpus_score(rows, scores, nab.best_threshold(rows, scores, costs), costs) >= 50.0


@with_data
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cutting_a_real_series_short_changes_no_earlier_score(share: float) -> None:
    real = [(LevelShift.start(8), one.rows) for one in records()]
    for detector, readings in [*real, *((Novelty.start(), one.values) for one in corpus())]:
        kept = int(share * len(readings))
        _, whole = detector.advance(readings)
        _, short = detector.advance(readings[:kept])
        assert short.tobytes() == whole[:kept].tobytes()
