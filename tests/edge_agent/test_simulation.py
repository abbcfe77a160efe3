"""Whole agents over a simulated disk, clock, broker and lake: a seed drives crashes at every step, loss and rot.

Half of the worlds read at a pace at which several ledger batches fall due on the way, the others at once. These look at
one thing each; `tests/sim` plays everything that can go wrong in one schedule.
"""

import random
from collections import Counter

import pytest

from contracts import microbatch
from contracts.microbatch import Flag
from edge_agent import backlog
from edge_agent.core.accounts import StreamSums
from edge_agent.core.spool import spool
from edge_agent.core.spool.identity import open_spool
from edge_agent.core.spool.record import scan
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.settling import LOST_SETTLE_S
from edge_agent.core.uplink.link import LinkEvent
from edge_agent.core.uplink.owed import LEDGER_INTERVAL_S
from edge_agent.report import Report
from tests.edge_agent.plant import SENSORS, Json
from tests.edge_agent.simulated import WANTED, World, lines_with_faults
from tests.edge_agent.worlds import Crash, MemoryDisk


def check(world: World, report: Report, seed: int) -> None:
    events = len(world.lines)
    telemetry = report.streams["telemetry"]
    assert (report.drained, report.unexplained, telemetry.observed) == (True, 0, events), f"seed={seed} {report}"
    assert telemetry.committed_upto == events
    if not world.retention.age_ms:
        assert set(world.disk.names()) - {"reserve"} == {"cursor.json", "spool.json"}
    valid = telemetry.kept + telemetry.aggregated
    lake = world.lake
    epoch = report.epoch
    for name, sums in report.streams.items():
        assert lake.committed(name, epoch) == (((0, sums.observed),) if sums.observed else ()), f"seed={seed} {name}"
    if telemetry.lost == 0:
        lake.assert_conserves(events)
        assert telemetry.kept == len(lake.rows("telemetry")), f"seed={seed}"
        windows = lake.rows("telemetry_windows")
        assert sum(row["count"] for row in windows) == len(SENSORS) * valid, f"seed={seed}"
        assert sum(row["kept"] for row in windows) == len(SENSORS) * telemetry.kept, f"seed={seed}"
        assert len(lake.rows("quarantine")) == sum(telemetry.dropped.values()), f"seed={seed}"
        check_ledger(world, telemetry, seed)


def check_ledger(world: World, telemetry: StreamSums, seed: int) -> None:
    """The lake's entries say what the device says, over ranges that follow each other, of which each adds up."""
    entries = [row for row in world.lake.rows("ledger") if row["stream"] == "telemetry"]
    assert fates(entries) == fates_of(telemetry), f"seed={seed}"
    summed: Counter[tuple[int, int]] = Counter()
    for row in entries:
        summed[row["first_seq"], row["span"]] += row["count"]
    at = 0
    for (first, span), count in sorted(summed.items()):
        assert (first, count) == (at, span), f"seed={seed}"
        at += span
    assert at == telemetry.observed, f"seed={seed}"
    ledgers = sum(name == "ledger" for name, *_ in world.lake.batches)
    assert ledgers <= world.runs + world.now_s / LEDGER_INTERVAL_S, f"seed={seed}"


def fates(entries: list[Json]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for row in entries:
        sums[row["fate"]] += row["count"]
    return {fate: count for fate, count in sums.items() if count}


def fates_of(sums: StreamSums) -> dict[str, int]:
    found = {
        "kept": sums.kept, "aggregated": sums.aggregated, "dropped": sum(sums.dropped.values()), "lost": sums.lost,
    }  # fmt: skip
    return {fate: count for fate, count in found.items() if count}


@pytest.mark.parametrize("seed", [*range(12), 1038])  # 1038: killed before a sync, then a power cut
def test_crashes_at_any_step_lose_and_double_nothing(seed: int) -> None:
    rng = random.Random(seed)
    world = World(seed, lines_with_faults(rng, rng.randint(50, 600)), events_per_s=seed % 2 * 30.0)
    for _ in range(rng.randint(1, 12)):
        world.disk.crash_after = rng.randint(0, 60 + seed % 2 * 140)
        try:
            report = world.run()
        except Crash:
            world.crash()
            continue
        world.disk.crash_after = None
        check(world, report, seed)
        return
    world.disk.crash_after = None
    check(world, world.run(), seed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments and lanes so small that a short run fills many."""
    monkeypatch.setattr(spool, "SEGMENT_BATCHES", 5)
    monkeypatch.setattr(backlog, "LOADED_BATCHES_MAX", 12)
    monkeypatch.setattr(backlog, "BACKLOG_BATCHES_MIN", 4)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(12))
def test_a_backlog_of_many_segments_arrives_once_whatever_crashes(seed: int) -> None:
    rng = random.Random(seed)
    world = World(seed, lines_with_faults(rng, rng.randint(300, 900)), events_per_s=seed % 2 * 100.0)
    for _ in range(rng.randint(1, 6)):
        world.offline = rng.random() < 0.6
        world.disk.crash_after, world.crash_at_s = rng.randint(20, 300), world.now_s + rng.randint(1, 20)
        try:
            report = world.run()
        except Crash:
            world.crash()
            continue
        check(world, report, seed)
        return
    world.offline = False
    check(world, world.run(), seed)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(10))
def test_the_ring_keeps_every_event_for_its_time_and_no_longer(seed: int) -> None:
    rng = random.Random(seed)
    world = World(seed, lines_with_faults(rng, rng.randint(300, 900)), events_per_s=100.0)
    world.retention = Retention(age_ms=3_600_000, size_bytes=10**9)
    for _ in range(rng.randint(0, 3)):
        world.disk.crash_after, world.crash_at_s = rng.randint(20, 300), world.now_s + rng.randint(1, 20)
        try:
            world.run()
        except Crash:
            world.crash()
    world.disk.crash_after = world.crash_at_s = None
    report = world.run()
    check(world, report, seed)
    spool = world.spool()
    assert (spool.owed_bytes, report.spool_bytes) == (0, 0)
    kept, stored = 0, 0
    for replayed in spool.replay({"telemetry": 0}):
        kept += sum(microbatch.parse(batch)[0].rows for batch in replayed.batches)
        stored += sum(ref.rows for ref, _ in replayed.stored)
    telemetry = report.streams["telemetry"]
    assert (kept, stored) == (telemetry.kept, telemetry.aggregated)
    in_time_ms = min(segment.last_ms for segment in spool.segments) + world.retention.age_ms - 1
    assert spool.free({}, in_time_ms) == ()
    assert len(spool.free({}, in_time_ms + 1)) >= 1
    world.retention = Retention(age_ms=10**12, size_bytes=spool.size_bytes // 2)
    smaller = world.spool()
    smaller.free({}, 0)
    assert smaller.size_bytes <= world.retention.size_bytes


@pytest.mark.usefixtures("small")
def test_live_events_pass_a_backlog() -> None:
    world = World(1, lines_with_faults(random.Random(1), 2_000), events_per_s=100.0)
    world.faults, world.offline = False, True
    world.crash_at_s = 10.0
    with pytest.raises(Crash):
        world.run()
    world.crash()
    world.offline = False
    stored = open_spool(MemoryDisk(world.disk.files), WANTED).observed["telemetry"]
    assert stored > 500
    check(world, world.run(), 1)
    order = [header.first_seq for name, header, _ in world.lake.batches if name == "telemetry"]
    first_live = next(place for place, seq in enumerate(order) if seq >= stored)
    assert max(order[:first_live], default=0) < stored / 2  # most of the backlog came after it
    live = {header.flags & Flag.BACKLOG for name, header, _ in world.lake.batches if header.first_seq >= stored}
    assert 0 in live


@pytest.mark.usefixtures("small")
def test_memory_holds_no_more_of_a_backlog_than_it_is_told() -> None:
    world = World(2, lines_with_faults(random.Random(2), 1_500), events_per_s=100.0)
    world.faults, world.offline = False, True
    most = 0

    def on_status(report: Report) -> None:
        nonlocal most
        most = max(most, report.pending_batches)
        world.offline = world.now_s < 30
        if world.offline and world.now_s > 10:
            assert report.waiting_segments > 5

    world.on_status = on_status
    check(world, world.run(), 2)
    assert most <= 12 + 2 * 6  # and what one flush and one segment add


def test_a_crash_between_every_two_steps_of_a_short_run() -> None:
    lines = lines_with_faults(random.Random(1), 120)
    for steps in range(40):
        world = World(4, lines)
        world.disk.crash_after = steps
        try:
            report = world.run()
        except Crash:
            world.crash()
            report = world.run()
        check(world, report, steps)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_rot_is_accounted_for_as_lost_and_nothing_else_is(seed: int, offline: bool) -> None:
    rng = random.Random(seed)
    world = World(seed, lines_with_faults(rng, 400), events_per_s=seed % 2 * 30.0)
    world.faults, world.offline = False, offline
    world.disk.crash_after = rng.randint(15, 30 + seed % 2 * 150)
    with pytest.raises(Crash):
        world.run()
    world.disk.crash_after = None
    world.disk.durable = {name: len(data) for name, data in world.disk.files.items()}
    segments = [name for name in world.disk.files if name.endswith(".log")]
    name = rng.choice(segments)
    frames = scan(world.disk.files[name]).frames
    if not frames:
        return
    victim = rng.choice(frames)
    at = rng.randrange(victim.offset, victim.end)
    data = world.disk.files[name]
    world.disk.files[name] = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    world.crash()
    world.offline = False
    report = world.run()
    telemetry = report.streams["telemetry"]
    assert report.drained
    assert telemetry.observed == 400
    rows = sum(ref.rows for ref in victim.meta.batches if ref.contract == "telemetry")
    stored = sum(ref.rows for ref in victim.meta.stored)
    assert telemetry.lost == 0 or telemetry.lost == rows or telemetry.lost <= stored, f"seed={seed}"
    assert report.unexplained == 0, f"seed={seed} {report}"
    assert telemetry.kept == len(world.lake.rows("telemetry")), f"seed={seed}"  # what arrived is not called lost
    entries = [row for row in world.lake.rows("ledger") if row["stream"] == "telemetry"]
    assert fates(entries) == fates_of(telemetry), f"seed={seed}"  # whichever record held the entries of what is lost
    reasons = {row["reason"] for row in entries if row["fate"] == "lost"}
    assert reasons in ({"spool_corrupt"}, {"window_lost"}) if telemetry.lost else not reasons, f"seed={seed}"


@pytest.mark.parametrize("seed", range(10))
def test_a_followed_file_that_goes_quiet_gets_its_ledger_out(seed: int) -> None:
    world = World(seed, lines_with_faults(random.Random(seed), 100))
    world.faults = False
    agent = world.start(followed=True)
    said: list[float] = []

    def on_status(report: Report) -> None:
        telemetry = report.streams.get("telemetry")
        assert telemetry is None or telemetry.unexplained == 0
        if world.lake.rows("ledger"):
            said.append(world.now_s)
        if world.now_s > 30.0:
            agent.stop()

    world.on_status = on_status
    report = agent.run()
    assert report.pending_batches == 0
    assert min(said) < LEDGER_INTERVAL_S + 5.0  # the way to the lake takes up to 3 s, a status comes every second
    check_ledger(world, report.streams["telemetry"], seed)
    assert sum(name == "ledger" for name, *_ in world.lake.batches) == 1


def test_an_agent_that_is_stopped_leaves_its_owed_entries_to_the_next() -> None:
    world = World(3, lines_with_faults(random.Random(3), 100))
    world.faults = False
    agent = world.start(followed=True)
    world.on_status = lambda report: agent.stop() if world.lake.rows("telemetry") else None
    agent.run()
    assert world.lake.rows("ledger") == []
    world.on_status = lambda _report: None
    world.crash()
    check(world, world.run(), 3)
    assert sum(name == "ledger" for name, *_ in world.lake.batches) == 1


def test_a_settlement_that_the_disk_does_not_take_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(5, lines_with_faults(random.Random(5), 400), events_per_s=20.0)
    world.faults, world.offline = False, True
    world.disk.crash_after = 150
    with pytest.raises(Crash):
        world.run()
    world.disk.crash_after = None
    # Else a power cut may take the index too, and nobody would know how many rows the record had.
    world.disk.durable = {name: len(data) for name, data in world.disk.files.items()}
    name = next(name for name in world.disk.files if name.endswith(".log"))
    data = world.disk.files[name]
    at = scan(data).frames[3].body_offset + 10
    world.disk.files[name] = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    world.crash()
    world.offline = False
    begun_s = world.now_s
    turns, take = 0, world.take

    def counted(wait_s: float) -> list[LinkEvent]:
        nonlocal turns
        turns += 1
        return take(wait_s)

    def on_status(_report: Report) -> None:
        is_full = LOST_SETTLE_S - 2 < world.now_s - begun_s < LOST_SETTLE_S + 8
        world.disk.fail_after = 0 if is_full else None

    monkeypatch.setattr(world, "take", counted)

    world.on_status = on_status
    report = world.run()
    entries = [row for row in world.lake.rows("ledger") if row["stream"] == "telemetry"]
    assert (report.drained, report.unexplained) == (True, 0)
    assert report.streams["telemetry"].lost > 0
    assert fates(entries) == fates_of(report.streams["telemetry"])
    assert turns < 2_000  # of the loop, which does not turn faster while it waits for the disk
