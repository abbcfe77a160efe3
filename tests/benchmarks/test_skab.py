"""The counts of the Skoltech set, and how its files are read."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.detection import skab
from benchmarks.detection.skab import Counts
from contracts.errors import OperatorMustActError

HEADER = ";".join(("datetime", *skab.SENSORS, *skab.LABELS))
ROW = "2020-02-08 19:16:28;0.25;0.29;3.1;0.05;85.8;28.8;233.7;126.0"


def write_record(folder: Path, header: str, rows: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1.csv").write_text("\n".join((header, *rows)) + "\n")


def test_rates_are_those_of_the_leaderboard() -> None:
    anomaly = np.array([False] * 6 + [True] * 4)
    alarms = np.array([True, False, False, False, False, True, True, True, True, False])
    counts = skab.count(anomaly, alarms)
    assert counts == Counts(hits=3, false_alarms=2, misses=1, calm=4)
    assert counts.f1 == pytest.approx(3 / (3 + (2 + 1) / 2))
    assert counts.false_alarm_rate == pytest.approx(2 / 6)
    assert counts.missed_alarm_rate == pytest.approx(1 / 4)


def test_counts_are_added_up_before_rates_are_taken() -> None:
    found = skab.total([Counts(1, 0, 0, 9), Counts(0, 0, 3, 1)])
    assert (found.f1, found.missed_alarm_rate) == (pytest.approx(0.4), 0.75)
    assert (Counts().f1, Counts().false_alarm_rate, Counts().missed_alarm_rate) == (0.0, 0.0, 0.0)


def test_labelled_files_are_read_and_the_calm_one_apart(tmp_path: Path) -> None:
    write_record(tmp_path / "valve1", HEADER, [f"{ROW};0.0;0.0"] * 400 + [f"{ROW};1.0;0.0"])
    (tmp_path / "anomaly-free").mkdir()
    calm = "\n".join((HEADER.removesuffix(";anomaly;changepoint"), *[ROW] * 401))
    (tmp_path / "anomaly-free" / "anomaly-free.csv").write_text(calm)
    (record,) = skab.read_records(tmp_path)
    assert (record.name, record.rows.shape, record.rows[0, 7]) == ("valve1/1", (401, 8), 126.0)
    assert np.flatnonzero(record.anomaly).tolist() == [400]
    assert not skab.read_calm(tmp_path).anomaly.any()


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (HEADER.replace(";", ","), [f"{ROW};0.0;0.0"] * 401),
        (HEADER, [f"{ROW};0.0;0.0"] * 400),
        (HEADER, [f"{ROW};0.0"] * 401),
        (HEADER, [f"{ROW};0.0;none"] * 401),
        (HEADER, [f"{ROW};0.0;0.0"] * 400 + [ROW]),
        (HEADER, []),
    ],
)
def test_files_that_are_not_as_described_are_named(tmp_path: Path, header: str, rows: list[str]) -> None:
    write_record(tmp_path / "valve1", header, rows)
    with pytest.raises(OperatorMustActError, match=r"1\.csv: expected"):
        skab.read_records(tmp_path)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorMustActError, match="expected labelled files"):
        skab.read_records(tmp_path)
