"""The windows of a stream on their way through the intake: rows of every kind, and a restart in between."""

import msgspec

from contracts.bundle import Measure, WindowKind, Windows
from edge_agent.core.intake import Intake, Plan
from edge_agent.core.record import Meta
from tests.edge_agent.plant import CONTRACTS, SENSORS, Json, lines_of, reading, rows_of
from tests.edge_agent.simulated import plan_of

EVENTS = 400  # four a second: 100 s
PLANS = (
    Windows("telemetry_windows", 10_000, SENSORS),
    Windows("telemetry_windows", 30_000, SENSORS[:2], WindowKind.SLIDING, slide_ms=10_000, measures=(Measure.SUM,)),
    Windows("telemetry_windows", 60_000, SENSORS[2:4], WindowKind.SESSION, gap_ms=2_000, sketch=True),
)


def plan() -> Plan:
    return msgspec.structs.replace(plan_of(epoch=100), windows=PLANS)


def test_rows_of_every_kind_cover_every_event_also_over_a_restart() -> None:
    lines = lines_of([reading(seq) for seq in range(EVENTS)])
    rows: list[Json] = []
    newest: Meta | None = None
    for first in range(0, EVENTS, 50):
        intake = Intake(plan(), newest)  # a restart before every flush
        resume = intake.resume_seq
        intake.refill(resume, lines[resume : intake.next_seq])
        assert intake.is_refilled()
        group = intake.take(lines[first : first + 50], first, final=first + 50 == EVENTS)
        assert group is not None
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
