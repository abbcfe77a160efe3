"""Whole agents whose disk reads badly: what is only slow to come back is not lost, and what is gone is said once."""

import errno
import heapq
import random

import pytest
from msgspec.structs import replace

from contracts import ranges
from edge_agent.core.spool.settling import LOST_SETTLE_S
from edge_agent.core.uplink.link import Answered
from edge_agent.core.uplink.sending import RESEND_S
from edge_agent.report import Report
from tests.edge_agent.simulated import World, lines_with_faults, plan_of
from tests.edge_agent.worlds import Crash, MemoryDisk
from tests.sim.disk import TroubledDisk


class UnreadDisk(MemoryDisk):
    """A disk that cannot give back what lies in logs while `is_unread`, and never the sector that is `dead`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_unread = False
        self.dead: range | None = None

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.endswith(".log"):
            end = offset + length if length is not None else self.size(name)
            if self.is_unread or (self.dead is not None and offset < self.dead.stop and end > self.dead.start):
                raise OSError(errno.EIO, "Input/output error")
        return super().read(name, offset, length)


def unread_world(seed: int) -> tuple[World, UnreadDisk]:
    world = World(seed, lines_with_faults(random.Random(seed), 300), events_per_s=30.0)
    world.faults = False
    world.disk = disk = UnreadDisk()
    return world, disk


def test_a_disk_that_fails_for_a_while_costs_nothing() -> None:
    world, disk = unread_world(1)

    def on_status(report: Report) -> None:
        disk.is_unread = 2.0 < world.now_s < 20.0
        if disk.is_unread and world.now_s > 5.0:
            assert "cannot be read" in (report.last_error or "")

    world.on_status = on_status
    report = world.run()
    assert (report.drained, report.unexplained) == (True, 0)
    assert report.streams["telemetry"].lost == 0
    world.lake.assert_conserves(300)


def test_what_a_dead_sector_held_is_lost_with_an_entry() -> None:
    world, disk = unread_world(2)
    disk.dead = range(4_000, 4_512)
    report = world.run()
    entries = [row for row in world.lake.rows("ledger") if row["stream"] == "telemetry"]
    lost = sum(row["count"] for row in entries if row["fate"] == "lost")
    assert (report.drained, report.unexplained) == (True, 0)
    assert 0 < lost == report.streams["telemetry"].lost
    assert sum(row["count"] for row in entries) == 300
    assert len(world.lake.rows("telemetry")) == report.streams["telemetry"].kept


class SlowLake(World):
    """Commits so late that the agent sends again, and still before it may call a batch lost that rotted meanwhile."""

    commit_after_s = RESEND_S + LOST_SETTLE_S / 2

    def publish(self, batch: bytes) -> int | None:
        self._message += 1
        answer = Answered(self.link, self._message, 0)
        self._later(lambda: answer)
        self._order += 1
        heapq.heappush(self._coming, (self.now_s + self.commit_after_s, self._order, lambda: self._commit(batch)))
        return self._message


def test_what_is_under_way_when_its_copy_rots_is_not_called_lost() -> None:
    world = SlowLake(3, lines_with_faults(random.Random(3), 100), events_per_s=30.0)
    world.faults = False
    world.disk = disk = TroubledDisk(random.Random(3))

    def on_status(_report: Report) -> None:
        if 10.0 < world.now_s < 12.0:
            disk.rot()

    world.on_status = on_status
    report = world.run()
    assert (report.drained, report.unexplained) == (True, 0)
    assert [row for row in world.lake.rows("ledger") if row["fate"] == "lost"] == []
    assert "damage was found" in (report.last_error or "")
    world.lake.assert_conserves(100)


def test_what_rotted_of_a_contract_that_no_bundle_has_any_more_neither_ends_the_agent_nor_passes_for_sent() -> None:
    world, disk = unread_world(4)
    world.offline, world.crash_at_s = True, 20.0
    with pytest.raises(Crash):
        world.run()
    world.crash()
    segment = world.spool().segments[0]
    loaded = world.spool().load(segment.number, {}).pending
    victim = next(batch for batch in loaded if batch.contract == "telemetry_windows")
    disk.dead = range(victim.offset, victim.offset + 1)
    streams = tuple(replace(stream, windows=(), windows_contracts=()) for stream in world.plan.streams)
    world.plan = replace(world.plan, streams=streams)
    world.offline = False
    report = world.run()
    assert "telemetry_windows, of which the bundle knows no contract" in (report.last_error or "")
    held = world.lake.committed("telemetry_windows", report.epoch)
    assert ranges.missing(held, victim.first_seq, victim.end_seq) == ((victim.first_seq, victim.end_seq),)
    world.lake.assert_conserves(300)
    world.plan = plan_of(0)
    report = world.run()
    assert (report.drained, report.streams["telemetry_windows"].lost) == (True, victim.rows)
