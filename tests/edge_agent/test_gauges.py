"""What an agent reads of itself, over a real spool and courier."""

import msgspec

from contracts import watermark
from contracts.watermark import AckDocument, Watermark
from edge_agent.core.intake import Intake
from edge_agent.core.spool.identity import open_spool
from edge_agent.core.spool.pressure import Step
from edge_agent.core.uplink.link import AckArrived, LinkDown, LinkUp
from edge_agent.courier import Courier
from edge_agent.gauges import Gauges
from edge_agent.version import AGENT_VERSION
from tests.edge_agent.simulated import DEVICE, WANTED, plan_of
from tests.edge_agent.test_owed import lines, taken
from tests.edge_agent.worlds import MemoryDisk

LAKE_BEHIND_MS = 250  # the lake's clock is this much behind the device's


class Clock:
    def __init__(self) -> None:
        self.at_s = 2_000.0

    def now_ms(self) -> int:
        return int(self.at_s * 1_000)

    def monotonic_s(self) -> float:
        return self.at_s


class Uplink:
    """A link that takes everything."""

    link = 1

    def __init__(self) -> None:
        self.published = 0

    def connect(self, epoch: int) -> None:
        return

    def publish(self, batch: bytes) -> int | None:
        self.published += 1
        return self.published

    def request_certificate(self, request: bytes) -> None:
        return

    def drop(self) -> None:
        return

    def close(self, epoch: int) -> None:
        return


class Device:
    """Spool, courier and gauges; the lake answers when it is told to."""

    def __init__(self, disk: MemoryDisk, clock: Clock) -> None:
        self.clock = clock
        self.spool = open_spool(disk, WANTED)
        self.intake = Intake(msgspec.structs.replace(plan_of(100), epoch=self.spool.epoch), self.spool.recovered.newest)
        self.courier = Courier(DEVICE, self.spool, Uplink(), clock, lambda: 0.5, lambda _said: None)
        self.cpu_s = 1.0
        self.gauges = Gauges(
            self.spool, self.courier, clock, lambda: 61.5, lambda: self.cpu_s, 60.0, frozenset({"telemetry"}), 42
        )

    def take(self, events: int) -> None:
        began_s = self.clock.monotonic_s()
        group = taken(self.intake, lines(self.intake.next_seq("telemetry"), events), self.clock.now_ms())
        self.clock.at_s += 0.008
        self.courier.add(self.spool.append(group))
        self.gauges.flushed(began_s)

    def acknowledge(self, upto: int) -> None:
        commit_ms = self.clock.now_ms() - LAKE_BEHIND_MS - 40
        marks = tuple(
            Watermark(DEVICE, name, self.spool.epoch, ((0, end),), 1, commit_ms)
            for name, end in (self.spool.observed | {"telemetry": upto}).items()
            if end
        )
        self.courier.on_event(AckArrived(1, watermark.encode(AckDocument(DEVICE, marks))))
        self.gauges.acknowledged(self.courier.ack)


def test_a_row_tells_what_happened_since_the_last_one() -> None:
    device = Device(MemoryDisk(), Clock())
    device.courier.on_event(LinkUp(1, 20, None))
    device.clock.at_s += 2
    for _ in range(4):
        device.take(25)
    device.courier.advance(device.clock.monotonic_s())
    device.cpu_s = 1.25
    assert device.gauges.metrics(Step.NONE, "7") is None
    device.clock.at_s += 60
    row = device.gauges.metrics(Step.RING, "7")
    assert row is not None
    assert (row.observed, row.flushes, row.cpu_ms, row.reconnects) == (100, 4, 250, 1)
    assert (row.pss_bytes, row.ladder_step, row.bundle_version) == (61_500_000, "ring", "7")
    assert row.batches == device.courier.window.published >= 4
    assert 7_000 < (row.flush_p50_us or 0) <= 8_001
    assert row.spool_bytes == device.spool.owed_bytes > 0
    device.clock.at_s += 60
    following = device.gauges.metrics(Step.NONE, "7")
    assert following is not None
    assert (following.observed, following.flushes, following.cpu_ms, following.reconnects) == (0, 0, 0, 0)


def test_no_row_is_written_where_the_disk_has_no_room() -> None:
    device = Device(MemoryDisk(), Clock())
    device.clock.at_s += 61
    assert device.gauges.metrics(Step.DROP, "7") is None
    assert device.gauges.metrics(Step.SLOW, "7") is not None


def test_the_lag_is_the_age_of_the_oldest_event_that_no_watermark_covers() -> None:
    device = Device(MemoryDisk(), Clock())
    assert (device.gauges.health().lag_events, device.gauges.health().lag_ms) == (0, 0)
    device.take(10)
    device.gauges.health()
    device.clock.at_s += 5
    device.take(20)
    device.gauges.health()
    device.clock.at_s += 5
    assert device.gauges.health().lag_ms // 1_000 == 10
    assert device.gauges.health().lag_events == sum(device.spool.observed.values()) >= 30
    device.acknowledge(10)
    assert (device.gauges.health().lag_events, device.gauges.health().lag_ms // 1_000) == (20, 5)
    device.acknowledge(30)
    assert (device.gauges.health().lag_events, device.gauges.health().lag_ms) == (0, 0)


def test_a_restart_knows_how_long_the_backlog_has_waited() -> None:
    disk, clock = MemoryDisk(), Clock()
    Device(disk, clock).take(10)
    clock.at_s += 3_600
    health = Device(disk, clock).gauges.health()
    assert (health.lag_events, health.lag_ms // 1_000) == (10, 3_600)
    assert (health.pid, health.agent_version) == (42, AGENT_VERSION)


def test_the_clock_is_judged_by_fresh_watermarks_only() -> None:
    device = Device(MemoryDisk(), Clock())
    device.courier.on_event(LinkUp(1, 20, None))
    device.take(30)
    device.acknowledge(5)  # was kept by the broker: who knows for how long
    device.clock.at_s += 61
    row = device.gauges.metrics(Step.NONE, "7")
    assert row is not None
    assert row.clock_offset_ms is None
    device.acknowledge(10)
    device.clock.at_s += 61
    row = device.gauges.metrics(Step.NONE, "7")
    assert row is not None
    assert row.clock_offset_ms == LAKE_BEHIND_MS + 40
    device.courier.on_event(LinkDown(1, "gone"))
    device.gauges.link_lost()
    device.clock.at_s += 61
    device.acknowledge(20)
    row = device.gauges.metrics(Step.NONE, "7")
    assert row is not None
    assert row.clock_offset_ms is None
