"""Workers that do not know of each other: whoever comes second is stale, and reads on from the table."""

from contracts.topics import HANDOVERS, SETTLEMENTS
from lakehouse.committer import GROUP
from lakehouse.handover import decode_settlement, partition_of
from lakehouse.positions import named
from lakehouse.writer import PARTITIONS
from tests.lakehouse.frames import CONTRACTS, frame, telemetry
from tests.lakehouse.memory import MemoryLog
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]


def test_a_zombie_that_writes_on_changes_nothing(world: World) -> None:
    zombie = world.start()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10))))
    zombie.drain()
    successor = world.start()  # the zombie has lost its shares without hearing of it
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10, 20))))
    zombie.writer.step()
    successor.drain()
    zombie.drain()
    assert [r["seq"] for r in world.records("telemetry")] == list(range(20))


def test_of_two_committers_the_slower_one_settles_again(world: World) -> None:
    slow = world.start()
    slow.drain()
    quick = world.start()
    quick.drain()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10))))
    quick.writer.step()
    slow.committer.step()
    quick.committer.step()
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10, 20))))
    quick.drain()
    slow.drain()
    assert [r["seq"] for r in world.records("telemetry")] == list(range(20))
    assert world.broker.watermarks()["device-1", "telemetry"].upto == 20


def test_two_workers_share_the_log_and_the_tables(world: World) -> None:
    one = world.start()
    two = world.join("ingest-2")
    for number in range(8):
        world.broker.batch(f"device-{number}", frame(TELEMETRY, telemetry(range(5))))
    for _ in range(40):
        one.step()
        two.step()
    assert one.status.batches + two.status.batches == 8
    assert min(one.status.batches, two.status.batches) > 0
    assert len(world.records("telemetry")) == 40
    one.expire()
    world.broker.batch("device-0", frame(TELEMETRY, telemetry(range(3, 9))))
    two.drain()
    assert [r["seq"] for r in world.records("telemetry") if r["origin"] == "device-0"] == list(range(9))


def test_a_commit_that_was_under_way_when_the_share_changed_is_answered(world: World) -> None:
    worker = world.start()
    worker.drain()
    recoveries = worker.status.recoveries
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(10))))
    worker.writer.step()
    worker.committer.step()  # begins the commit, whose end it would notice with its next step
    assert len(world.records("telemetry")) == 10
    # The table goes to somebody who is not heard of again: no other answer will come.
    gone = MemoryLog(world.broker, world.clock).share(GROUP, (HANDOVERS,)).dealt() or frozenset()
    assert named(HANDOVERS, partition_of("telemetry", PARTITIONS)) in gone
    worker.committer.step()
    answers = [decode_settlement(message.value or b"") for message in world.broker.topics[SETTLEMENTS][0]]
    (answer,) = [one for one in answers if one.worker == worker.writer.worker]
    assert (answer.contract, answer.snapshot_id is not None) == ("telemetry", True)
    assert world.broker.watermarks()["device-1", "telemetry"].upto == 10
    worker.drain()
    assert worker.status.recoveries == recoveries
    assert worker.errors == []


def test_answers_to_a_predecessor_of_the_same_name_are_not_ours(world: World) -> None:
    one = world.start()
    one.drain()
    names = {one.writer.worker}
    one.writer.recover()
    names.add(one.writer.worker)
    two = world.start()
    two.drain()
    names.add(two.writer.worker)
    assert len(names) == 3
    assert {name.partition("/")[0] for name in names} == {"ingest-1"}
