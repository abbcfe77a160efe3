"""What reaches the tables, the quarantine, the dead letters and the origins."""

import itertools

import pytest

from lakehouse.gathering import APART_MAX_S, BUSY_SHARE_MAX, LINGER_S
from lakehouse.ports import Step
from tests.lakehouse.frames import CONTRACTS, SEALED_AT_MS, clicks, evolved, frame, telemetry
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]
CLICKS = CONTRACTS["clicks"]


def test_rows_land_with_their_identity_and_are_acknowledged(world: World) -> None:
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(40)), span=50))
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(50, 60))))
    world.broker.batch("device-2", frame(TELEMETRY, telemetry([3, 7, 9]), first_seq=0, span=20, epoch=4))
    world.broker.batch("collector-1", frame(CLICKS, clicks(range(5))))
    worker = world.start()
    worker.drain()
    assert worker.status.rounds == 1
    found = world.records("telemetry")
    assert [(r["origin"], r["epoch"], r["seq"]) for r in found] == [
        *(("device-1", 1, seq) for seq in [*range(40), *range(50, 60)]),
        *(("device-2", 4, seq) for seq in (3, 7, 9)),
    ]
    expected = {r["seq"]: r for r in telemetry(range(60))}
    for row in found:
        own = expected[row["seq"]]
        assert row["occurred_at"].timestamp() * 1_000_000 == own["occurred_at"]
        assert {k: row[k] for k in own if k != "occurred_at"} == {k: own[k] for k in own if k != "occurred_at"}
        assert row["sealed_at"].timestamp() * 1_000 == SEALED_AT_MS
        assert row["contract_version"] == TELEMETRY.version
    assert len(world.records("clicks")) == 5
    marks = world.broker.watermarks()
    assert marks["device-1", "telemetry"].committed == ((0, 60),)
    assert (marks["device-2", "telemetry"].epoch, marks["device-2", "telemetry"].committed) == (4, ((0, 20),))
    assert marks["collector-1", "clicks"].upto == 5


def test_rounds_take_half_of_the_time_at_most_and_no_row_waits_for_ever(world: World) -> None:
    took_s, began_s = [0.05, 0.4, 5.0, 0.05], list[float]()

    def slow(step: Step, table: str = "") -> None:
        if step is Step.PLANNED:
            began_s.append(world.clock.monotonic_s())
        if step is Step.FILES_WRITTEN:
            world.clock.advance(took_s[len(began_s) - 1])

    worker = world.start(slow)
    for n in range(len(took_s)):
        world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(n, n + 1))))
        assert worker.writer.step()
    apart_s = [after - before for before, after in itertools.pairwise(began_s)]
    assert apart_s == pytest.approx([0.25, 0.4 / BUSY_SHARE_MAX, 5.0 + LINGER_S], abs=0.01)
    assert APART_MAX_S < 5.0


def test_a_published_contract_has_a_table_before_its_first_batch(world: World) -> None:
    worker = world.start()
    worker.drain()
    world.broker.publish(evolved(TELEMETRY))
    world.clock.advance(2)
    worker.step()
    assert "humidity" in world.rows(TELEMETRY).column_names
