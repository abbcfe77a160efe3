"""The Skoltech Anomaly Benchmark: records of a water circulation rig, and how its leaderboard scores a detector.

For every file a detector may learn from the first 400 rows, which its authors take for normal (in one file they are
not), and is judged row by row on the rest: the counts of all files are added up before F1, false and missed alarm rates
are taken. (Earlier versions of the leaderboard judged whole files; both can be counted here.)
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.detection.source import malformed

LEARN_ROWS: Final = 400
SENSORS: Final = (
    "Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure",
    "Temperature", "Thermocouple", "Voltage", "Volume Flow RateRMS",
)  # fmt: skip
LABELS: Final = ("anomaly", "changepoint")
CALM_DIR: Final = "anomaly-free"


class Record(Struct, frozen=True):
    """One file: `rows` [n, 8] as in SENSORS, `anomaly` [n]."""

    name: str
    rows: NDArray[np.float64]
    anomaly: NDArray[np.bool_]


class Counts(Struct, frozen=True):
    """Rows by what they were and what was told of them."""

    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    calm: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.false_alarms + other.false_alarms,
            self.misses + other.misses,
            self.calm + other.calm,
        )

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing was to be found and nothing was told."""
        return _share(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the normal rows that were alarmed."""
        return _share(self.false_alarms, self.false_alarms + self.calm)

    @property
    def missed_alarm_rate(self) -> float:
        """Share of the anomalous rows that were not alarmed."""
        return _share(self.misses, self.misses + self.hits)


def read_records(folder: Path) -> tuple[Record, ...]:
    """Read every labelled file. Raises OperatorMustActError for one that is not as described, or if there is none."""
    paths = sorted(path for path in folder.glob("*/*.csv") if path.parent.name != CALM_DIR)
    if not paths:
        raise malformed(folder, "labelled files in folders", [entry.name for entry in folder.iterdir()][:5])
    return tuple(_read_record(path) for path in paths)


def read_calm(folder: Path) -> Record:
    """Read the record without an anomaly, 2.6 hours. Raises OperatorMustActError if it is not as described."""
    return _read_record(folder / CALM_DIR / f"{CALM_DIR}.csv", labelled=False)


def count(anomaly: NDArray[np.bool_], alarms: NDArray[np.bool_]) -> Counts:
    """Compare what was with what was told, row by row."""
    return Counts(
        hits=int(np.count_nonzero(anomaly & alarms)),
        false_alarms=int(np.count_nonzero(~anomaly & alarms)),
        misses=int(np.count_nonzero(anomaly & ~alarms)),
        calm=int(np.count_nonzero(~anomaly & ~alarms)),
    )


def total(counts: Iterable[Counts]) -> Counts:
    """Add up the counts of files."""
    return sum(counts, Counts())


def _read_record(path: Path, labelled: bool = True) -> Record:
    header, *lines = path.read_text(encoding="ascii").splitlines()
    names = (*SENSORS, *LABELS) if labelled else SENSORS
    if header != ";".join(("datetime", *names)):
        raise malformed(path, f"columns {names}", header[:200])
    try:
        table = np.array([[float(cell) for cell in line.split(";")[1:]] for line in lines])
    except ValueError as error:
        raise malformed(path, "as many numbers in every row", str(error)) from error
    if table.shape[1:] != (len(names),) or len(table) <= LEARN_ROWS:
        raise malformed(path, f"more than {LEARN_ROWS} rows of {len(names)} numbers", table.shape)
    anomaly = table[:, len(SENSORS)] == 1.0 if labelled else np.zeros(len(table), dtype=np.bool_)
    return Record(f"{path.parent.name}/{path.stem}", table[:, : len(SENSORS)], anomaly)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
