"""The shuttle sensor record as the telemetry of a fleet: row i of the file is event i // 20 of device i % 20.

The record has no times, so every device is given one reading a second. Labels never reach a replay file; they lie in
the truth file, which only checks read.
"""

from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from infra.datasets.replay import US_PER_S, Provenance, Replay, iso_times, thinned
from onnx_models import SensorRecord, read_sensor_record, training_row_count

CONTRACT: Final = "telemetry"
DEVICE_COUNT: Final = 20


RowNumbers = NDArray[np.int64]


class Reading(Struct, frozen=True):
    """One sensor reading, as the contract names its fields."""

    asset_id: str
    occurred_at: str
    f1: int
    f2: int
    f3: int
    f4: int
    f5: int
    f6: int
    f7: int
    f8: int
    f9: int


class ReadingTruth(Struct, frozen=True):
    """What only a check may know: `row` counts in the record, `in_training` says if the filter could have seen it."""

    device: str
    seq: int
    row: int
    anomaly: bool
    in_training: bool


def device_id(number: int) -> str:
    """Return the name of the device with this number, counted from 0."""
    return f"press-{number + 1:02d}"


def asset_id(number: int) -> str:
    """Return the name of the machine with this number, counted from 0; device n measures machine n."""
    return f"A-{number + 1:04d}"


def read_telemetry(path: Path, start_us: int, fraction: float) -> tuple[list[Replay], list[ReadingTruth]]:
    """Deal an evenly spread `fraction` of the record's rows over the fleet, the first readings at `start_us`.

    Raises onnx_models.DatasetError.
    """
    record = read_sensor_record(path)
    row_numbers = thinned(len(record.labels), fraction)
    training_end = training_row_count(len(record.labels))
    replays: list[Replay] = []
    truth: list[ReadingTruth] = []
    for number in range(DEVICE_COUNT):
        rows = row_numbers[number::DEVICE_COUNT]
        replays.append(_replay(record, rows, number, start_us))
        labels = record.labels[rows].tolist()
        truth.extend(
            ReadingTruth(device_id(number), seq, row, anomaly, row < training_end)
            for seq, (row, anomaly) in enumerate(zip(rows.tolist(), labels, strict=True))
        )
    return replays, truth


def _replay(record: SensorRecord, rows: RowNumbers, number: int, start_us: int) -> Replay:
    times = iso_times(start_us + np.arange(len(rows), dtype=np.int64) * US_PER_S)
    values = record.rows[rows].astype(np.int64).tolist()
    asset = asset_id(number)
    events = [Reading(asset, time, *sensors) for time, sensors in zip(times, values, strict=True)]
    return Replay(CONTRACT, device_id(number), events, {Provenance.REAL: len(events)})
