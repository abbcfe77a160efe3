"""The sample of what does not travel: uniform, the same after a restart, and in a stream of its own."""

import msgspec

from contracts import microbatch
from contracts.microbatch import Flag
from contracts.offshoots import sampled_of
from contracts.sampling import DROPPED_SAMPLE, draw, draws_below, seed_of
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from tests.edge_agent.plant import CONTRACTS, Json, lines_of, reading, rows_of
from tests.edge_agent.simulated import DEVICE, plan_of

EVENTS = 4_000
RATIO = 0.05
SAMPLED = sampled_of(CONTRACTS["telemetry"])


def plan(ratio: float = RATIO) -> Plan:
    plan = plan_of(epoch=7)
    stream = msgspec.structs.replace(plan.streams[0], sampled=SAMPLED, sample_ratio=ratio)
    return msgspec.structs.replace(plan, streams=(stream,))


def sample(flush: int) -> tuple[list[Json], set[int]]:
    """Return the rows of the sample over flushes of one size, and the numbers of all events that were kept."""
    intake = Intake(plan(), None)
    rows: list[Json] = []
    kept: set[int] = set()
    for first in range(0, EVENTS, flush):
        events = [reading(seq) for seq in range(first, min(EVENTS, first + flush))]
        group = intake.take({"telemetry": lines_of(events)}, first)
        assert group is not None
        for batch in group.batches:
            header, _ = microbatch.parse(batch.data)
            assert bool(header.flags & Flag.DROPPED_SAMPLE) == (batch.contract == SAMPLED.id)
            if batch.contract == SAMPLED.id:
                rows += rows_of(SAMPLED, batch.data)
            elif batch.contract == "telemetry":
                kept |= {row["seq"] for row in rows_of(CONTRACTS["telemetry"], batch.data)}
    return rows, kept


def test_it_takes_exactly_the_events_whose_draw_says_so_and_none_that_travel() -> None:
    rows, kept = sample(500)
    seed = seed_of(DEVICE, 7, "telemetry", DROPPED_SAMPLE)
    expected = [seq for seq in range(EVENTS) if seq not in kept and draw(seed, seq) < draws_below(RATIO)]
    assert [row["source_seq"] for row in rows] == expected
    assert 0.5 * RATIO < len(rows) / (EVENTS - len(kept)) < 2 * RATIO
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert {(row["dropped_by"], row["dropped_because"]) for row in rows} == {("sim@1", "filtered")}
    assert all(row["f1"] == reading(row["source_seq"])["f1"] for row in rows)
    assert sample(77)[0] == rows


def test_without_a_ratio_nothing_is_sampled() -> None:
    group = Intake(plan(0.0), None).take({"telemetry": lines_of([reading(seq) for seq in range(500)])}, 0)
    assert group is not None
    assert SAMPLED.id not in {batch.contract for batch in group.batches}


def test_the_fate_of_a_sampled_event_stays_what_it_is() -> None:
    plain = plan_of(epoch=7)
    lines = {"telemetry": lines_of([reading(seq) for seq in range(500)])}
    with_sample, without = Intake(plan(1.0), None).take(lines, 0), Intake(plain, None).take(lines, 0)
    assert with_sample is not None
    assert without is not None
    assert [c for c in with_sample.meta.counts if c.stream == "telemetry"] == [
        c for c in without.meta.counts if c.stream == "telemetry"
    ]
