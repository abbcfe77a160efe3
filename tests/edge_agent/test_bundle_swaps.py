"""Bundles tried, swapped and gone back from in the real agent, over a simulated clock, disk, broker and lake."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.report import Report
from tests.edge_agent.plant import lines_of, reading
from tests.edge_agent.simulated import lines_with_faults
from tests.edge_agent.swapping import WIDER, SwapWorld, check, dropping, release_of, write_release

EVENTS = 900  # fifteen seconds at 60 a second


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., SwapWorld]:
    def make(seed: int = 1, lines: list[bytes] | None = None, **options: object) -> SwapWorld:
        folder = tmp_path / "bundles"
        write_release(folder, release_of(1))
        world = SwapWorld(folder, seed, lines or lines_of([reading(n) for n in range(EVENTS)]), **options)  # type: ignore[arg-type]
        world.shelf.activate(1)
        world.faults = False
        return world

    return make


def test_a_release_comes_into_force_between_two_chunks_and_stays(make_world: Callable[..., SwapWorld]) -> None:
    world = make_world()
    states: list[str] = []

    def on_status(report: Report) -> None:
        states.append(f"{report.bundle.release} {report.bundle.state}")
        if len(states) == 2:
            world.stage(release_of(2, (dropping(5, version=2),)))

    world.on_status = on_status
    report = world.finish()
    assert list(dict.fromkeys(states)) == ["1 idle", "1 shadow", "2 active", "2 idle"]
    check(world, report, 1)
    telemetry = report.streams["telemetry"]
    assert telemetry.dropped.keys() == {"low@2|dropped_by_rule"}  # the ledger names who decided
    assert world.shelf.active() == 2
    kept = {row["seq"] for row in world.lake.rows("telemetry")}
    first = min(seq for seq in range(EVENTS) if seq not in kept)
    assert kept == {seq for seq in range(EVENTS) if seq < first or reading(seq)["f1"] >= 5}


@pytest.mark.parametrize("seed", range(30))
def test_swaps_lose_and_double_nothing_whatever_crashes(make_world: Callable[..., SwapWorld], seed: int) -> None:
    rng = random.Random(seed)
    world = make_world(seed, lines_with_faults(rng, rng.randint(400, EVENTS)))
    world.faults = True
    kinds = (
        lambda n: release_of(n, (dropping(10, n),)),
        lambda n: release_of(n, window_ms=30_000),
        lambda n: release_of(n, (dropping(30, n),), telemetry=WIDER),
        lambda n: release_of(n, window_ms=20_000, telemetry=WIDER),
    )
    number = 1

    def on_status(report: Report) -> None:
        nonlocal number
        if rng.random() < 0.3 and number < 8:
            number += 1
            world.stage(rng.choice(kinds)(number))
        if rng.random() < 0.15:
            world.shelf.crash_after = rng.randint(0, 6)
        if rng.random() < 0.15:
            world.disk.crash_after = rng.randint(0, 40)

    world.on_status = on_status
    check(world, world.finish(), seed)
