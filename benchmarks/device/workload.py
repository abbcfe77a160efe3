"""What measured devices run on: the shuttle sensor record as readings of a few machines, and a bundle for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from contracts import bundle as bundles
from contracts.bundle import Bundle, Model, Stream, Windows
from contracts.offshoots import sampled_of
from infra.bundles.build import FILTERED, WINDOW_MS, WINDOWED_INTO
from infra.bundles.documents import read_contracts
from infra.datasets.replay import iso_times
from infra.datasets.telemetry import Reading, asset_id
from infra.setup.paths import shuttle_csv_gz
from onnx_models import SensorRecord
from onnx_models.factory import build_filter, write_filter

START_US: Final = 1_767_571_200_000_000
BLOCK_EVENTS: Final = 10_000


def write_bundle(folder: Path, *, filtered: bool = True) -> Bundle:
    """Write the shipped contracts and, with `filtered`, filter and windows of telemetry as the demo has them."""
    folder.mkdir(parents=True, exist_ok=True)
    contracts = read_contracts()
    streams: tuple[Stream, ...] = ()
    models: tuple[Model, ...] = ()
    if filtered:
        write_filter(build_filter(shuttle_csv_gz()), folder)
        model = msgspec.json.decode((folder / "model.json").read_bytes(), type=Model)
        source = next(contract for contract in contracts if contract.id == FILTERED)
        contracts = (*contracts, sampled_of(source))
        streams = (Stream(FILTERED, model=model.id, windows=(Windows(WINDOWED_INTO, WINDOW_MS, model.inputs),)),)
        models = (model,)
    bundle = Bundle(version="1", contracts=tuple(contracts), streams=streams, models=models)
    (folder / bundles.BUNDLE_FILE).write_bytes(bundles.encode(bundle))
    return bundle


def readings(record: SensorRecord, events: int, machines: int, events_per_s: int) -> Iterator[bytes]:
    """Yield blocks of JSON lines: the record's rows in their order, over and over, dealt to the machines in turn.

    All machines together give `events_per_s` readings a second of event time.
    """
    rows = record.rows.astype(np.int64)
    encoder = msgspec.json.Encoder()
    for first in range(0, events, BLOCK_EVENTS):
        numbers = np.arange(first, min(first + BLOCK_EVENTS, events), dtype=np.int64)
        times = iso_times(START_US + numbers * (1_000_000 // events_per_s))
        values = rows[numbers % len(rows)].tolist()
        made = (
            Reading(asset_id(number % machines), time, *sensors)
            for number, time, sensors in zip(numbers.tolist(), times, values, strict=True)
        )
        yield encoder.encode_lines(made)
