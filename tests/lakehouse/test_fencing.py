"""Two ingest processes over one table: one goes on, the other stops and says what to do."""

import pytest

from lakehouse.errors import FencedError
from tests.lakehouse.frames import CONTRACTS, frame, telemetry
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]


def test_a_zombie_is_stopped_by_its_next_commit(world: World) -> None:
    zombie = world.start()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10))))
    zombie.step()
    successor = world.start()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10, 20))))
    assert world.drain(successor) == 1
    with pytest.raises(FencedError, match="another ingest process writes here; stop one"):
        zombie.step()
    assert [r["seq"] for r in world.records("telemetry")] == list(range(20))


def test_a_successor_overtaken_by_a_zombie_starts_over_and_agrees(world: World) -> None:
    zombie, successor = world.start(), world.start()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10))))
    zombie.step()
    with pytest.raises(FencedError):
        successor.step()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10, 20))))
    world.drain(world.start())
    assert [r["seq"] for r in world.records("telemetry")] == list(range(20))
