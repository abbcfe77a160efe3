"""Readings of a real rig as the telemetry of five devices, and a filter that drops most of them.

The rig is the hydraulic one of the UCI set 447 (Helwig, Pignanelli, Schuetze, DOI 10.1109/I2MTC.2015.7151267): load
cycles of 60 s, eight sensors at 1 Hz. Device n has every fifth cycle from the nth on; its ninth sensor is the second
within the cycle. Where that set is not beside the checkout, the demo's sensor record is dealt out the same way.
"""

import gzip
import shutil
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from benchmarks.detection.source import data_dir, malformed
from contracts.bundle import BUNDLE_FILE, Bundle, encode
from infra.bundles.scoring import score_rows
from infra.datasets import Manifest
from infra.datasets.replay import US_PER_S, iso_times, json_lines
from infra.datasets.telemetry import Reading
from infra.datasets.typed_rows import read_replay
from infra.demo.fleet import Member
from infra.demo.material import Material

DEVICES: Final = 5
TELEMETRY: Final = "telemetry"
SENSORS: Final = ("TS1", "TS2", "TS3", "TS4", "VS1", "CE", "CP", "SE")
CYCLE_S: Final = 60  # s, and readings of a cycle
PER_UNIT: Final = 100  # the contract's sensors are whole numbers: hundredths of the rig's units
START_US: Final = 1_767_571_200 * US_PER_S  # 2026-01-05; the set has no times
KEPT_SHARE: Final = 0.1  # of the readings; the threshold is put where the filter keeps so many


class Readings(Struct, frozen=True):
    """What is replayed: one file and its rows per device; `source` says where they come from.

    `is_foreign`: the demo's filter has not learnt from this record.
    """

    source: str
    is_foreign: bool
    files: tuple[tuple[str, Path, int], ...]

    @property
    def rows(self) -> int:
        """Readings of all devices."""
        return sum(rows for _, _, rows in self.files)

    def members(self, flow_s: float) -> list[Member]:
        """Return the devices, each of which needs this long for its file."""
        return [Member(device, TELEMETRY, file, rows, flow_s) for device, file, rows in self.files]


def make_readings(folder: Path, manifest: Manifest, datasets_dir: Path) -> Readings:
    """Write the files of five devices; the manifest's data sets lie in `datasets_dir`.

    Raises OperatorMustActError when the set is not what it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hydraulic = data_dir() / "hydraulic"
    if not hydraulic.is_dir():
        entries = [e for e in manifest.files if e.role == "replay" and e.contract == TELEMETRY][:DEVICES]
        files = tuple((str(e.device), datasets_dir / e.path, e.rows) for e in entries)
        return Readings("the demo's sensor record", False, files)
    cycles = read_cycles(hydraulic)
    files = tuple(_write(folder, number, cycles[number::DEVICES]) for number in range(DEVICES))
    source = f"hydraulic rig, UCI set 447: {len(cycles)} cycles of {CYCLE_S} s, 8 sensors at 1 Hz"
    return Readings(source, True, files)


def read_cycles(folder: Path) -> NDArray[np.float64]:
    """Return the rig's record, shape (cycles, 60, 8). Raises OperatorMustActError."""
    sensors: list[NDArray[np.float64]] = []
    for name in SENSORS:
        path = folder / f"{name}.txt.gz"
        with gzip.open(path, "rt") as file:
            values = np.loadtxt(file, delimiter="\t", ndmin=2)
        if values.shape[1] != CYCLE_S or (sensors and values.shape != sensors[0].shape):
            raise malformed(path, f"{CYCLE_S} readings a cycle, as many cycles as the others", values.shape)
        sensors.append(values)
    return np.stack(sensors, axis=2)


def keep_a_share(material: Material, readings: Readings, folder: Path) -> Bundle:
    """Write the demo's bundle, for a foreign record with a threshold that keeps a tenth of it; return it."""
    shutil.copytree(material.bundle_dir, folder)
    bundle = material.bundle
    if not readings.is_foreign:
        return bundle
    contract, model_id = bundle.contract(TELEMETRY), bundle.stream(TELEMETRY).model
    (model,) = (model for model in bundle.models if model.id == model_id)
    rows = pa.concat_tables([read_replay(file, contract, device) for device, file, _ in readings.files])
    threshold = float(np.quantile(score_rows(rows, model, folder), 1.0 - KEPT_SHARE, method="higher"))
    tuned = replace(bundle, models=(replace(model, threshold=threshold),))
    (folder / BUNDLE_FILE).write_bytes(encode(tuned))
    return tuned


def _write(folder: Path, number: int, cycles: NDArray[np.float64]) -> tuple[str, Path, int]:
    device, path = f"rig-{number + 1}", folder / f"rig-{number + 1}.jsonl"
    values = np.rint(cycles.reshape(-1, len(SENSORS)) * PER_UNIT).astype(np.int64)
    times = iso_times(START_US + np.arange(len(values), dtype=np.int64) * US_PER_S)
    seconds = np.tile(np.arange(CYCLE_S), len(cycles))
    rows = np.column_stack((values, seconds)).tolist()
    asset = f"RIG-{number + 1}"
    path.write_bytes(json_lines([Reading(asset, at, *sensors) for at, sensors in zip(times, rows, strict=True)]))
    return device, path, len(rows)
