"""Rows of metrics are delivered as events are: each once, whatever crashes, and no event suffers from them."""

import random

import msgspec
import pytest

from edge_agent.agent import Agent
from edge_agent.core.metrics import AGENT_METRICS
from edge_agent.gauges import Gauges
from tests.edge_agent.plant import CONTRACTS, Lake, contract
from tests.edge_agent.simulated import DEVICE, World, lines_with_faults, plan_of
from tests.edge_agent.worlds import Crash

INTERVAL_S = 2.0  # s; so that a run of some seconds writes several rows


class MeteredWorld(World):
    """A world whose bundle has the contract of metrics."""

    def __init__(self, seed: int, lines: list[bytes]) -> None:
        super().__init__(seed, lines, events_per_s=30.0)
        metrics = contract(AGENT_METRICS)
        self.plan = msgspec.structs.replace(plan_of(0), metrics=metrics, version="7")
        self.lake = Lake(DEVICE, {**CONTRACTS, AGENT_METRICS: metrics})

    def start(self, *, followed: bool = False) -> Agent:
        agent = super().start(followed=followed)
        agent.gauges = Gauges(
            agent._spool, agent._courier, self, lambda: 61.5, float, INTERVAL_S, frozenset({"telemetry"}), self.runs
        )
        return agent


@pytest.mark.parametrize("seed", range(25))
def test_every_row_arrives_once_whatever_crashes(seed: int) -> None:
    rng = random.Random(seed)
    world = MeteredWorld(seed, lines_with_faults(rng, rng.randint(100, 500)))
    for _ in range(rng.randint(0, 6)):
        world.disk.crash_after = rng.randint(0, 200)
        try:
            world.run()
            break
        except Crash:
            world.crash()
    world.disk.crash_after = None
    report = world.run()
    assert (report.drained, report.unexplained) == (True, 0), f"seed={seed} {report}"
    world.lake.assert_conserves(len(world.lines))
    rows = world.lake.rows(AGENT_METRICS)
    sums = report.streams[AGENT_METRICS]
    assert [row["seq"] for row in rows] == list(range(sums.observed)), f"seed={seed}"
    assert (sums.kept, sums.lost, sums.committed_upto) == (sums.observed, 0, sums.observed), f"seed={seed}"
    assert rows, f"seed={seed}"
    assert all(row["bundle_version"] == "7" and row["pss_bytes"] == 61_500_000 for row in rows)
    # What crashed processes counted and did not send is in no row; no event is in two.
    assert sum(row["observed"] for row in rows) <= len(world.lines)


def test_without_faults_the_rows_add_up() -> None:
    lines = lines_with_faults(random.Random(1), 600)
    world = MeteredWorld(1, lines)
    world.faults = False
    report = world.run()
    rows = world.lake.rows(AGENT_METRICS)
    measured_s = (rows[-1]["measured_at"] - rows[0]["measured_at"]) / 1e6
    assert measured_s == pytest.approx(sum(row["interval_ms"] for row in rows[1:]) / 1_000, abs=0.1)
    assert sum(row["reconnects"] for row in rows) == report.health.connections == 1
    assert 0 < sum(row["observed"] for row in rows) <= len(lines)
    assert all(row["interval_ms"] >= INTERVAL_S * 1_000 for row in rows)
    assert max(row["lag_ms"] for row in rows) < 10_000
