"""What a kept event costs on the wire, what coding it costs, and hostile batches. A part of the edge's figures.

- Bytes: sealed batches of 10, 50 and 200 rows, header included, of rows that neither filter nor dictionary has seen:
  the last quarter of the shuttle sensor record as the filter keeps it, and of every tablet's CRM-like events. The
  reference is the same batch as JSON lines (every column of the batch, `seq` too) in one zstd frame of level 3. Figures
  are of the worse of the two.
- Speed: one thread, mean over some batches; without dictionary for what stays on the device, with it for the wire.
- Hostile batches: `benchmarks.hostile`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import zstandard
from msgspec import Struct

from benchmarks import crm_events
from benchmarks.hostile import Sound, fuzz
from contracts import microbatch
from contracts.bundle import Model
from contracts.contract import Contract, FieldType, fingerprint
from contracts.microbatch import Codec, Header
from edge_agent.core.codec.payload import PayloadDecoder, PayloadEncoder, Purpose
from edge_agent.core.codec.sealing import Sealer
from infra.bundles.documents import read_contracts
from infra.bundles.scoring import score_rows
from infra.datasets.telemetry import asset_id
from infra.dictionaries import Rows, train
from infra.dictionaries.training import JUDGED_BATCH_ROWS, held_out
from infra.setup.paths import shuttle_csv_gz
from lakehouse.decode import Arrived, decode
from onnx_models.dataset import SENSOR_COLUMNS, read_sensor_record
from onnx_models.factory import build_filter, write_filter

JSON_ZSTD_LEVEL: Final = 3
START_US: Final = 1_767_571_200_000_000
READING_EVERY_US: Final = 1_000_000
TABLETS: Final = 12
EVENTS_PER_TABLET: Final = 1_500
SPEED_ROWS: Final = (200, 4_000)
SPEED_BATCHES: Final = 20
HOSTILE_INPUTS: Final = 1_000_000
HOSTILE_SEED: Final = 20_260_105

Curves = dict[str, dict[int, float]]  # what -> rows per batch -> bytes per event


class Workload(Struct, frozen=True):
    """Rows of every origin, and the dictionary that was trained on their first part."""

    contract: Contract
    origins: tuple[Rows, ...]
    dictionary: bytes


def measure(progress: Callable[[str], None], hostile_inputs: int = HOSTILE_INPUTS) -> tuple[dict[str, float], Curves]:
    """Return all figures, and bytes per event by batch size for a plot."""
    progress("codec: training dictionaries ...")
    workloads = {"telemetry": telemetry(), "crm": crm()}
    figures: dict[str, float] = {}
    curves: Curves = {}
    for size in JUDGED_BATCH_ROWS:
        for name, workload in workloads.items():
            sent, as_json = _bytes_per_event(workload, size)
            curves.setdefault(f"{name}: micro-batch", {})[size] = sent
            curves.setdefault(f"{name}: JSON + zstd", {})[size] = as_json
        worst = [(curves[f"{n}: micro-batch"][size], curves[f"{n}: JSON + zstd"][size]) for n in workloads]
        figures[f"bytes_per_event_{size}"] = round(max(sent for sent, _ in worst), 2)
        figures[f"ratio_json_zstd_{size}"] = round(min(as_json / sent for sent, as_json in worst), 2)
    progress("codec: speed ...")
    for name, workload in workloads.items():
        for rows in SPEED_ROWS:
            for what, us in _speed(workload, rows).items():
                figures[f"{what}_{name}_{rows}_us"] = round(us, 2)
    tally = fuzz(sound_batches(workloads.values()), hostile_inputs, HOSTILE_SEED, progress)
    figures |= {f"hostile_{reader}_read": float(count) for reader, count in tally.read.items()}
    figures["hostile_inputs"] = float(tally.inputs)
    return figures, curves


def telemetry() -> Workload:
    """Return the sensor record as one machine's device keeps it: one reading a second, filter by the shipped recipe."""
    contract = next(contract for contract in read_contracts() if contract.id == "telemetry")
    record = read_sensor_record(shuttle_csv_gz())
    with TemporaryDirectory(prefix="fieldlake-codec-") as folder:
        write_filter(build_filter(shuttle_csv_gz()), Path(folder))
        model = msgspec.json.decode((Path(folder) / "model.json").read_bytes(), type=Model)
        table = pa.table({name: record.rows[:, at] for at, name in enumerate(SENSOR_COLUMNS)})
        scores = score_rows(table, model, Path(folder))
    seqs = np.flatnonzero(scores >= np.float32(model.threshold)).astype(np.int64)
    columns: dict[str, Any] = {
        "asset_id": [asset_id(0)] * len(seqs),
        "occurred_at": START_US + seqs * READING_EVERY_US,
        **{name: record.rows[seqs, at].astype(np.int32) for at, name in enumerate(SENSOR_COLUMNS)},
        "score": scores[seqs],
        "model": [f"{model.id}@{model.version}"] * len(seqs),
    }
    return _trained(contract, (Rows(seqs, columns),))


def crm() -> Workload:
    """Return generated events of some reps' tablets."""
    seqs = np.arange(EVENTS_PER_TABLET, dtype=np.int64)
    made = (crm_events.events(EVENTS_PER_TABLET, seed) for seed in range(1, TABLETS + 1))
    return _trained(crm_events.CONTRACT, tuple(Rows(seqs, crm_events.columns_of(rows)) for rows in made))


def sound_batches(workloads: Sequence[Workload] | Any) -> list[Sound]:
    """Return batches of all kinds: both codecs, with dictionary and without, small and large, without rows."""
    found: list[Sound] = []
    for workload in workloads:
        rows = workload.origins[0]
        for count in (0, 1, 7, 60):
            part = rows.part(20, 20 + count)
            for dictionary in (b"", workload.dictionary):
                for purpose in Purpose:
                    batch = _batch(workload.contract, part, dictionary, purpose)
                    found.append(Sound(workload.contract, dictionary, batch))
    return found


def _trained(contract: Contract, origins: tuple[Rows, ...]) -> Workload:
    return Workload(contract, origins, train(contract, origins).data)


def _batch(contract: Contract, rows: Rows, dictionary: bytes, purpose: Purpose) -> bytes:
    payload = PayloadEncoder(contract, dictionary).encode(rows.seqs, rows.columns, purpose)
    first = int(rows.seqs[0]) if len(rows) else 0
    span = int(rows.seqs[-1]) + 1 - first if len(rows) else 1
    header = Header(
        fingerprint(contract), 1, first, span, len(rows), payload.raw_bytes, START_US // 1_000, payload.dictionary_id,
        codec=payload.codec,
    )  # fmt: skip
    return microbatch.seal(header, payload.data)


def _bytes_per_event(workload: Workload, size: int) -> tuple[float, float]:
    """Return bytes per event of sealed batches, and of the same batches as JSON lines in a zstd frame."""
    sealer = Sealer(workload.contract, 1, workload.dictionary)
    compressor = zstandard.ZstdCompressor(level=JSON_ZSTD_LEVEL)
    sent = as_json = events = 0
    for rows in held_out(workload.origins):
        for part in _parts(rows, size):
            first, end = int(part.seqs[0]), int(part.seqs[-1]) + 1
            sent += sum(len(b.data) for b in sealer.seal(first, end, part.seqs, part.columns, START_US // 1_000))
            as_json += len(compressor.compress(_json_lines(workload.contract, part)))
            events += len(part)
    return sent / events, as_json / events


def _parts(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows.part(at, at + size) for at in range(0, len(rows) - size + 1, size))


def _json_lines(contract: Contract, rows: Rows) -> bytes:
    """Return rows as compact JSON lines: times in ISO 8601, a null field left out, floats as short as they can be."""
    columns: dict[str, list[Any]] = {"seq": np.asarray(rows.seqs).tolist()}
    for field in contract.fields:
        values: Any = rows.columns[field.name]
        if field.type is FieldType.TIMESTAMPTZ:
            columns[field.name] = [f"{text}Z" for text in np.datetime_as_string(values.astype("datetime64[us]"))]
        elif field.type is FieldType.FLOAT:
            columns[field.name] = [None if value is None else float(str(np.float32(value))) for value in values]
        else:
            columns[field.name] = values.tolist() if hasattr(values, "tolist") else values
    names = list(columns)
    events = (zip(names, row, strict=True) for row in zip(*columns.values(), strict=True))
    return b"\n".join(msgspec.json.encode({n: v for n, v in event if v is not None}) for event in events)


def _speed(workload: Workload, rows: int) -> dict[str, float]:
    """Return us per event of coding for the wire and for the spool, and of decoding on the device and in the lake."""
    whole = workload.origins[0]
    repeats = -(-rows // len(whole))
    columns = {name: _repeated(values, repeats, rows) for name, values in whole.columns.items()}
    part = Rows(np.arange(rows, dtype=np.int64) * 13, columns)
    found: dict[str, float] = {}
    for purpose in Purpose:
        name, dictionary = purpose.name.lower(), workload.dictionary if purpose is Purpose.WIRE else b""
        encoder, decoder = PayloadEncoder(workload.contract, dictionary), PayloadDecoder(workload.contract, dictionary)
        payload = encoder.encode(part.seqs, part.columns, purpose)
        read = (payload.data, rows, payload.raw_bytes, payload.codec)
        found[f"encode_{name}"] = _us(partial(encoder.encode, part.seqs, part.columns, purpose)) / rows
        found[f"decode_{name}"] = _us(partial(decoder.decode, *read)) / rows
    known = zstandard.ZstdCompressionDict(workload.dictionary)
    batch = _batch(workload.contract, part, workload.dictionary, Purpose.WIRE)
    arrived = [Arrived("device", f"t/0/{at}", *microbatch.parse(batch), batch) for at in range(SPEED_BATCHES)]
    assert arrived[0].header.codec == Codec.PACKED_ZSTD
    dictionaries = {known.dict_id(): known}
    found["lake"] = _us(lambda: decode(arrived, workload.contract, dictionaries)) / (rows * SPEED_BATCHES)
    return found


def _repeated(values: Any, repeats: int, rows: int) -> Any:
    return np.tile(values, repeats)[:rows] if isinstance(values, np.ndarray) else (list(values) * repeats)[:rows]


def _us(work: Callable[[], object]) -> float:
    """Return the shortest of some runs: what it takes when nothing else wants the processor."""
    work()
    times: list[float] = []
    for _ in range(SPEED_BATCHES):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) * 1e6
