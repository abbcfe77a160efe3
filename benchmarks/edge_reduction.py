"""What filter, windows and codec together leave of raw JSON, and what the filter misses. A part of the edge's figures.

The rows are those that neither filter nor dictionary was made from: the sensor record's hold-out. They pass the agent's
own core, one flush a second, under a simulated clock. Everything that leaves is counted with its MQTT headers: kept
rows, windows, ledger, and the sample of what was dropped. Labels are read afterwards.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import zstandard
from numpy.typing import NDArray

from benchmarks.device.workload import START_US, readings
from benchmarks.edge_throughput import EVENTS_PER_S
from contracts import microbatch
from edge_agent.adapters import bundle_files
from edge_agent.core.accounts import Wire, add_wire
from edge_agent.core.intake import Intake
from infra.demo.material import make_material
from infra.setup.paths import shuttle_csv_gz
from lakehouse.decode import Arrived, decode
from onnx_models import SensorRecord, read_sensor_record, training_row_count

DURATION_S: Final = 600
FLUSH_S: Final = 1
MACHINES: Final = (1, 4, 20)  # the figure is of one; the others say what more subjects cost
DEVICE: Final = "press-01"
EPOCH: Final = 1
TELEMETRY: Final = "telemetry"


def measure(progress: Callable[[str], None], duration_s: int = DURATION_S) -> tuple[dict[str, float], Any]:
    """Return the ratio and the filter's recall of one machine with 1,000 readings a second, and both for more."""
    record = read_sensor_record(shuttle_csv_gz())
    begin = training_row_count(len(record.labels))
    hold_out = SensorRecord(record.rows[begin:], record.labels[begin:])
    found: dict[int, dict[str, float]] = {}
    with TemporaryDirectory(prefix="fieldlake-reduction-") as name:
        progress("reduction: making filter and dictionaries ...")
        material = make_material(Path(name))
        for machines in MACHINES:
            found[machines] = _reduced(material.bundle_dir, hold_out, machines, duration_s)
            progress(f"reduction: {machines} machines: {found[machines]['ratio']:.0f} times less than JSON")
    first = found[MACHINES[0]]
    how = {
        "source": f"hold-out rows of the sensor record, over and over, {EVENTS_PER_S} a second for {duration_s} s",
        "flush_s": FLUSH_S,
        "counted": "MQTT packets of rows, windows, ledger and sample against JSON lines",
        "by machines": {str(machines): values for machines, values in found.items()},
    }
    return {"reduction_ratio": round(first["ratio"], 1), "filter_recall": round(first["recall"], 5)}, how


def _reduced(bundle_dir: Path, record: SensorRecord, machines: int, duration_s: int) -> dict[str, float]:
    bundle = bundle_files.load(bundle_dir)
    plan = bundle_files.plan_of(
        bundle, bundle_dir, device=DEVICE, shard=0, epoch=EPOCH, streams={TELEMETRY: False}, stores=False
    )
    intake, wire = Intake(plan, None), Wire()
    kept: list[Arrived] = []
    events = duration_s * EVENTS_PER_S
    lines = [line for block in readings(record, events, machines, EVENTS_PER_S) for line in block.splitlines()]
    for first in range(0, events, FLUSH_S * EVENTS_PER_S):
        end = min(first + FLUSH_S * EVENTS_PER_S, events)
        now_ms = START_US // 1_000 + end * 1_000 // EVENTS_PER_S
        ends = end == events
        final = (TELEMETRY,) if ends else ()
        group = intake.take({TELEMETRY: lines[first:end]}, now_ms, final=final, ends=ends)
        assert group is not None
        wire = add_wire(wire, group.meta.wire)
        for batch in group.batches:
            if batch.contract == TELEMETRY:
                header, payload = microbatch.parse(batch.data)
                kept.append(Arrived(DEVICE, f"reduction/0/{len(kept)}", header, payload, batch.data))
    anomalous = np.resize(record.labels, events)
    return {
        "ratio": wire.observed_json_bytes / wire.all_packet_bytes,
        "recall": float(anomalous[_seqs(bundle_dir, kept)].sum() / anomalous.sum()),
        "kept_ratio": wire.rows / events,
        "json_bytes_per_event": wire.observed_json_bytes / events,
        "bytes_per_event": wire.all_packet_bytes / events,
    }


def _seqs(bundle_dir: Path, batches: list[Arrived]) -> NDArray[np.int64]:
    """Return the numbers of the rows that left, as the lake reads them."""
    bundle = bundle_files.load(bundle_dir)
    data = [(bundle_dir / entry.file).read_bytes() for entry in bundle.dictionaries]
    known = {one.dict_id(): one for one in map(zstandard.ZstdCompressionDict, data)}
    decoded, refused = decode(batches, bundle.contract(TELEMETRY), known)
    assert not refused, refused
    seqs: NDArray[np.int64] = decoded.rows["seq"].cast(pa.int64()).to_numpy()
    return seqs
