"""Whole agents on a disk that is too small for the time that they are offline: what is given up, and in which order."""

import random

import pytest
from msgspec.structs import replace

from edge_agent import agent, backlog
from edge_agent.core.spool import pressure, spool
from edge_agent.core.spool.pressure import Step
from edge_agent.core.spool.retention import Retention
from edge_agent.report import Report
from tests.edge_agent.simulated import World, lines_with_faults

RESERVE_BYTES = 20_000
CAPACITY_BYTES = 260_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a minute without a link fills the disk."""
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(backlog, "LOADED_BATCHES_MAX", 64)
    monkeypatch.setattr(pressure, "SCARCE_BYTES", 80_000)
    for module in (pressure, agent):
        monkeypatch.setattr(module, "RESERVE_BYTES", RESERVE_BYTES)


def short_world(seed: int, *, sheds: bool) -> tuple[World, list[str]]:
    """Return a device that is offline for five minutes, and the steps that it will say it is on."""
    world = World(seed, lines_with_faults(random.Random(seed), 4_000), events_per_s=40.0)
    world.plan = replace(world.plan, streams=(replace(world.plan.streams[0], sheds=sheds),))
    world.faults, world.offline = False, True
    world.disk.capacity_bytes = CAPACITY_BYTES
    world.retention = Retention(age_ms=10**9, size_bytes=10**9)
    steps: list[str] = []

    def on_status(report: Report) -> None:
        world.offline = world.now_s < 300
        if not steps or steps[-1] != report.given_up:
            steps.append(report.given_up)
        assert report.unexplained == 0, f"seed={seed} {report}"

    world.on_status = on_status
    return world, steps


@pytest.mark.parametrize("seed", range(3))
def test_events_wait_with_their_source_until_there_is_room(seed: int) -> None:
    world, steps = short_world(seed, sheds=False)
    report = world.run()
    telemetry = report.streams["telemetry"]
    assert (report.drained, report.unexplained, telemetry.observed) == (True, 0, 4_000), f"seed={seed}"
    assert [step for step in steps if step in ("ring", "coarse", "slow")][:3] == ["ring", "coarse", "slow"]
    assert "disk_full" not in str(telemetry.dropped)
    assert telemetry.kept == len(world.lake.rows("telemetry"))
    world.lake.assert_conserves(4_000)


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_that_may_be_shed_loses_events_last_and_says_so(seed: int) -> None:
    world, steps = short_world(seed, sheds=True)
    report = world.run()
    telemetry = report.streams["telemetry"]
    assert (report.drained, report.unexplained, telemetry.observed) == (True, 0, 4_000), f"seed={seed}"
    assert steps.index("ring") < steps.index("coarse") < steps.index("slow") < steps.index(Step.DROP.name.lower())
    shed = telemetry.dropped["|disk_full"]
    assert 0 < shed < 4_000
    assert sum(row["count"] for row in world.lake.rows("ledger") if row["reason"] == "disk_full") == shed
    world.lake.assert_conserves(4_000)


def test_a_disk_that_others_fill_lets_the_reserve_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    world, steps = short_world(7, sheds=False)
    world.retention = Retention()
    free = CAPACITY_BYTES

    def on_status(report: Report) -> None:
        nonlocal free
        world.offline = world.now_s < 20
        if 5 < world.now_s < 15:  # another program takes everything that is left, and gives it back
            used = sum(map(len, world.disk.files.values()))
            world.disk.capacity_bytes = used
        else:
            world.disk.capacity_bytes = CAPACITY_BYTES
        steps.append(report.given_up)

    world.on_status = on_status
    report = world.run()
    assert (report.drained, report.unexplained, report.streams["telemetry"].observed) == (True, 0, 4_000)
    assert Step.DROP.name.lower() in steps
    world.lake.assert_conserves(4_000)
