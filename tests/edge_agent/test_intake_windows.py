"""The windows of a stream on their way through the intake: rows of every kind, and a restart in between."""

import msgspec
import pytest

from contracts.bundle import Measure, WindowKind, Windows
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Parts, Plan
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.identity import open_spool
from edge_agent.core.spool.record import Meta, scan_index
from edge_agent.core.spool.segment import index_name, segment_name
from tests.edge_agent.plant import CONTRACTS, SENSORS, Json, lines_of, reading, rows_of
from tests.edge_agent.simulated import WANTED, plan_of
from tests.edge_agent.worlds import MemoryDisk

EVENTS = 400  # four a second: 100 s
PLANS = (
    Windows("telemetry_windows", 10_000, SENSORS),
    Windows("telemetry_windows", 30_000, SENSORS[:2], WindowKind.SLIDING, slide_ms=10_000, measures=(Measure.SUM,)),
    Windows("telemetry_windows", 60_000, SENSORS[2:4], WindowKind.SESSION, gap_ms=2_000, sketch=True),
)


def plan() -> Plan:
    plan = plan_of(epoch=100)
    return msgspec.structs.replace(plan, streams=(msgspec.structs.replace(plan.streams[0], windows=PLANS),))


def test_rows_of_every_kind_cover_every_event_also_over_a_restart() -> None:
    lines = lines_of([reading(seq) for seq in range(EVENTS)])
    rows: list[Json] = []
    spool = open_spool(MemoryDisk(), WANTED)
    newest: Meta | None = None
    for first in range(0, EVENTS, 50):
        intake = Intake(plan(), newest)  # a restart before every flush
        for replayed in spool.replay(intake.resume_seqs()):
            intake.refill(replayed)
        assert intake.is_refilled()
        final = ("telemetry",) if first + 50 == EVENTS else ()
        group = intake.take({"telemetry": lines[first : first + 50]}, first, final=final)
        assert group is not None
        spool.append(group)
        newest = group.meta
        for batch in group.batches:
            if batch.contract == "telemetry_windows":
                rows += rows_of(CONTRACTS["telemetry_windows"], batch.data)
    counts = {kind: sum(row["count"] for row in rows if row["kind"] == kind) for kind in (None, "sliding", "session")}
    assert counts == {None: 9 * EVENTS, "sliding": 3 * 2 * EVENTS, "session": 2 * EVENTS}
    assert all((row["sketch"] is not None) == (row["kind"] == "session") for row in rows)
    assert all((row["p50"] is None) == (row["kind"] == "sliding") == (row["sum"] is not None) for row in rows)
    expected = sum(reading(seq)[SENSORS[0]] for seq in range(EVENTS))
    assert sum(row["sum"] for row in rows if row["kind"] == "sliding" and row["sensor"] == SENSORS[0]) == 3 * expected
    # A session ends at the full minute, whatever the gap.
    assert {row["window_ms"] for row in rows if row["kind"] == "session"} <= set(range(1, 60_001))


@pytest.mark.parametrize("victim", range(6))
def test_what_a_window_cannot_be_refilled_with_is_lost_and_said(victim: int) -> None:
    """The block of events that only windows have has rotted in one record; kept events are in their batch."""
    lines = lines_of([reading(seq) for seq in range(60)])
    disk = MemoryDisk()
    spool = open_spool(disk, WANTED)
    intake = Intake(plan(), None)
    for first in range(0, 60, 10):
        group = intake.take({"telemetry": lines[first : first + 10]}, first)
        assert group is not None
        spool.append(group)
    newest = spool.recovered.newest or group.meta
    records = list(scan_index(disk.files[index_name(1)]))
    meta = records[victim].meta
    at = records[victim].body_offset + sum(ref.length for ref in meta.batches)
    rows = sum(ref.rows for ref in meta.stored)
    data = disk.files[segment_name(1)]
    disk.files[segment_name(1)] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    again = Intake(plan(), newest)
    for replayed in open_spool(disk, WANTED).replay(again.resume_seqs()):
        again.refill(replayed)
    assert again.is_refilled() == (rows == 0 or meta.next_seq["telemetry"] <= again.resume_seqs()["telemetry"])
    group = again.forgo(1)
    final = again.take({}, 2, final=("telemetry",), ends=True)
    assert final is not None
    lost = sum(count.count for count in group.meta.counts if count.fate == "lost") if group is not None else 0
    assert again.is_refilled()
    assert lost <= rows
    assert (group is None) == (lost == 0)
    if group is not None:
        entries = [r for b in group.batches if b.contract == "ledger" for r in rows_of(CONTRACTS["ledger"], b.data)]
        assert {(row["fate"], row["count"], row["reason"]) for row in entries} == {
            ("aggregated", -lost, "window_lost"), ("lost", lost, "window_lost"),
        }  # fmt: skip
    written = [
        r for b in final.batches if b.contract == "telemetry_windows" for r in rows_of(CONTRACTS[b.contract], b.data)
    ]
    assert all(row["count"] > 0 for row in written)


def test_what_rots_is_accounted_for_after_a_swap_to_a_bundle_without_its_contract() -> None:
    intake = Intake(plan(), None)
    group = intake.take({"telemetry": lines_of([reading(seq) for seq in range(60)])}, 1, final=("telemetry",))
    assert group is not None
    assert any(batch.contract == "telemetry_windows" for batch in group.batches)
    stream = msgspec.structs.replace(plan().streams[0], windows=(), windows_contracts=())
    intake.adopt(Parts(msgspec.structs.replace(plan(), streams=(stream,))), 2)
    settled = intake.settle((Damage("telemetry_windows", 0, 5, 5),), 3)
    assert [count.count for count in settled.meta.counts if count.stream == "telemetry_windows"] == [-5, 5]
    assert settled.batches[0].contract == "telemetry_windows"
    assert intake.observed()["telemetry_windows"] == group.meta.next_seq["telemetry_windows"]
