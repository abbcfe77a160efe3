"""The sensor record that the filter learns from, and how its rows are parted.

The rows are parted by position, never at random: training sees the first 70 % of the file, of which the last fifth
chooses the threshold, and the rest of the file only measures. So anybody can name the side of a row by its number.
"""

import gzip
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.errors import DatasetError

SENSOR_COLUMNS: Final = ("f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9")
LABEL_COLUMN: Final = "anomaly"

TRAINING_SHARE_PERCENT: Final = 70
# Of the training rows, those that choose the threshold: about 500 anomalies, enough to see a recall of 99 %.
VALIDATION_SHARE_PERCENT: Final = 20
# Below this each part holds too few anomalies to say anything about a recall of 99 %.
ROWS_MIN: Final = 1_000

Rows = NDArray[np.float32]
Labels = NDArray[np.bool_]


class SensorRecord(Struct, frozen=True):
    """`rows` is float32 [n, 9] in file order, `labels` bool [n], true for an anomaly."""

    rows: Rows
    labels: Labels


class Split(Struct, frozen=True):
    """Row numbers where the parts begin: fit [0, fit_end), validation [fit_end, training_end), hold-out to the end."""

    fit_end: int
    training_end: int
    row_count: int


def training_row_count(row_count: int) -> int:
    """Return how many leading rows training may see; every later row is hold-out."""
    return row_count * TRAINING_SHARE_PERCENT // 100


def split_rows(row_count: int) -> Split:
    """Part a record of `row_count` rows; raises DatasetError if it is too short to measure on."""
    if row_count < ROWS_MIN:
        raise DatasetError(f"record has {row_count} rows, expected at least {ROWS_MIN}: pass the whole file")
    training_end = training_row_count(row_count)
    fit_end = training_end - training_end * VALIDATION_SHARE_PERCENT // 100
    return Split(fit_end=fit_end, training_end=training_end, row_count=row_count)


def read_sensor_record(path: Path) -> SensorRecord:
    """Read a gzipped CSV of nine integer sensors and a 0/1 label, header first.

    Raises DatasetError if the file is absent, not gzip, has another header, or holds anything but numbers.
    """
    expected = ",".join((*SENSOR_COLUMNS, LABEL_COLUMN))
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            header = lines.readline().strip()
            if header != expected:
                raise DatasetError(f"{path}: header is {header[:80]!r}, expected {expected!r}: pass shuttle.csv.gz")
            table = np.loadtxt(lines, delimiter=",", dtype=np.float64, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as gzipped numbers ({error}): install it again") from error
    return _checked_record(path, table)


def _checked_record(path: Path, table: NDArray[np.float64]) -> SensorRecord:
    width = len(SENSOR_COLUMNS) + 1
    if table.shape[1] != width or not np.isfinite(table).all():
        raise DatasetError(f"{path}: expected {width} finite numbers a row, found shape {table.shape}: file is damaged")
    labels = table[:, -1]
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DatasetError(f"{path}: {LABEL_COLUMN} must be 0 or 1, found {np.unique(labels)[:5]}: file is damaged")
    return SensorRecord(rows=table[:, :-1].astype(np.float32), labels=labels == 1.0)
