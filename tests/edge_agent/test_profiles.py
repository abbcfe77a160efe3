"""Both profiles are one device: the same batches byte for byte, and a spool that either goes on with."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.bundle import Measure, Model, WindowKind, Windows
from contracts.contract import Field, FieldType
from contracts.edge_rules import Between, Compare, DeadBand, Deduplicate, Drop, EdgeRule, Keep, OnChange, Sample
from contracts.offshoots import sampled_of
from edge_agent.config import ProfileName
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.rules import Rules
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.profile import EventFilter, Profile
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.spool.spool import Group
from edge_agent.core.stream import StreamPlan
from edge_agent.core.windows.open_windows import Limits
from edge_agent.lite import windows as lite_windows
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.lists import LISTS
from edge_agent.lite.rules import LiteRules
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS, Json, lines_of, rows_of
from tests.edge_agent.rule_worlds import CONTRACT, EPOCH, FIELDS
from tests.edge_agent.simulated import DEVICE, World, lines_with_faults, plan_of
from tests.edge_agent.test_simulation import check
from tests.edge_agent.worlds import Crash

PROFILES: tuple[ProfileName, ...] = ("full", "lite")
MODEL = Model("probe", "3", "m.onnx", "", ("temperature", "pressure"), 21.0, 8)
SCORED = msgspec.structs.replace(
    CONTRACT, fields=(*FIELDS, Field(13, "score", FieldType.FLOAT), Field(14, "model", FieldType.STRING))
)
RULES = (
    EdgeRule("alarm", 1, Keep(), Compare("count", "ge", 90)),
    EdgeRule("test-bench", 1, Drop(), Compare("asset_id", "eq", "泵-3")),
    EdgeRule("thin", 1, Sample(0.5), Between("energy", 0, 2)),
    EdgeRule("twice", 1, Deduplicate(("energy", "note"), 2_000)),
    EdgeRule("still", 2, OnChange((DeadBand("temperature", absolute=4.0),), 5_000)),
)
SENSORS = ("count", "temperature", "energy")
RANKED = (Measure.MIN, Measure.MEAN, Measure.P50, Measure.P99, Measure.SUM, Measure.VARIANCE, Measure.LAST)
PLAIN = (Measure.MAX, Measure.MEAN, Measure.SUM, Measure.VARIANCE)
WINDOWS = (
    Windows("telemetry_windows", 30_000, SENSORS, measures=RANKED),
    Windows("telemetry_windows", 60_000, ("temperature",), measures=PLAIN),
    Windows("telemetry_windows", 20_000, SENSORS[:2], WindowKind.SLIDING, slide_ms=5_000, measures=RANKED),
    Windows("telemetry_windows", 600_000, SENSORS, WindowKind.SESSION, gap_ms=400, measures=RANKED),
)


class FirstColumn:
    """Scores by the first input; where the second is not there, the score is not a number."""

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(np.isnan(rows[:, 1]), np.float32(np.nan), rows[:, 0])


def first_column(rows: list[list[float]]) -> list[float]:
    return [row[1] if row[1] != row[1] else row[0] for row in rows]


def plan(name: ProfileName, windows: tuple[Windows, ...] = WINDOWS) -> Plan:
    """Return a plan of a profile with everything that a stream can have."""
    profile: Profile
    events: EventFilter
    if name == "lite":
        profile, events = LISTS, LiteFilter(MODEL, first_column, LiteRules(RULES, SCORED, DEVICE, EPOCH))
    else:
        profile, events = ARRAYS, Filter(MODEL, FirstColumn(), Rules(RULES, SCORED, DEVICE, EPOCH))
    stream = StreamPlan(
        source=SCORED, filter=events, windows=windows, windows_contracts=(CONTRACTS["telemetry_windows"],),
        sampled=sampled_of(SCORED), sample_ratio=0.1, stores=True,
    )  # fmt: skip
    return Plan(DEVICE, 0, EPOCH, CONTRACTS["ledger"], CONTRACTS["quarantine"], (stream,), profile)


def lines(seed: int, events: int) -> list[bytes]:
    """Return events of some machines with every type, nulls, and some that fail the contract."""
    rng = random.Random(seed)
    clock = datetime(2026, 3, 1, 12, tzinfo=UTC)
    found: list[bytes] = []
    for _ in range(events):
        clock += timedelta(microseconds=rng.randint(0, 600_000))
        late = timedelta(seconds=rng.choice([0] * 20 + [1, 90]))
        event: dict[str, Any] = {
            "asset_id": f"泵-{rng.randint(1, 3)}", "occurred_at": (clock - late).isoformat(),
            "count": rng.randint(-100, 100), "total": rng.choice([None, 2**53 + 1, -7]),
            "temperature": rng.choice([rng.gauss(20, 3), round(rng.gauss(20, 3), 1)]),
            "pressure": rng.choice([None, 1 / 3, 0.1]), "volume": rng.choice([None, rng.random()]),
            "on": rng.random() < 0.5, "checked": rng.choice([None, True, False]),
            "note": rng.choice([None, "预算紧张", "需要比价", ""]), "served_at": rng.choice([None, clock.isoformat()]),
            "energy": rng.randint(0, 40),
        }  # fmt: skip
        if rng.random() < 0.02:
            event |= rng.choice([{"temperature": 1e39}, {"pressure": 1e39}, {"count": 2**31}, {"on": None}])
        found.append(b"{" if rng.random() < 0.01 else lines_of([event])[0])
    return found


def groups(name: ProfileName, source: list[bytes], sizes: list[int], windows: tuple[Windows, ...]) -> list[Group]:
    """Return what a device makes of a source in chunks of these sizes."""
    intake, found, first = Intake(plan(name, windows), None), [], 0
    for number, size in enumerate(sizes):
        last = first + size >= len(source)
        final = (SCORED.id,) if last else ()
        group = intake.take({SCORED.id: source[first : first + size]}, 1_000 * number, final=final, ends=last)
        assert group is not None
        found.append(group)
        first += size
    assert first >= len(source)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_both_profiles_write_the_same_bytes(seed: int) -> None:
    rng = random.Random(seed)
    source = lines(seed, 900)
    sizes: list[int] = []
    while sum(sizes) < len(source):
        sizes.append(rng.choice([1, 7, 40, 200, 400]))
    full, lite = (groups(name, source, sizes, WINDOWS) for name in PROFILES)
    assert [group.batches for group in full] == [group.batches for group in lite]
    assert [group.stored for group in full] == [group.stored for group in lite]
    assert [group.meta for group in full] == [group.meta for group in lite]
    contracts = {batch.contract for group in lite for batch in group.batches}
    assert contracts == {SCORED.id, "telemetry_windows", sampled_of(SCORED).id, "quarantine", "ledger"}


@pytest.mark.parametrize(("before", "after"), [("full", "lite"), ("lite", "full")])
@pytest.mark.parametrize("seed", range(4))
def test_a_start_in_the_other_profile_goes_on_as_if_it_had_not_been(
    before: ProfileName, after: ProfileName, seed: int
) -> None:
    source = lines(seed, 400)
    expected = groups(before, source, [100] * 4, WINDOWS)
    first = Intake(plan(before), None)
    taken = [first.take({SCORED.id: source[at : at + 100]}, 10 * at) for at in (0, 100)]
    second = Intake(plan(after), expected[1].meta)
    for group in expected[:2]:
        data = tuple(batch.data for batch in group.batches if batch.contract == SCORED.id)
        refs = tuple(zip(group.meta.stored, group.stored, strict=True))
        (seq,) = (batch.first_seq for batch in group.batches if batch.contract == SCORED.id)
        second.refill(Replayed(SCORED.id, seq, 100, data, refs))
    assert second.is_refilled()
    again = second.take({SCORED.id: source[200:300]}, 2_000)
    assert None not in taken
    assert again is not None
    assert again.batches == expected[2].batches
    assert (again.stored, again.meta) == (expected[2].stored, expected[2].meta)


@pytest.mark.parametrize("seed", range(12))
def test_crashes_of_a_lite_agent_at_any_step_lose_and_double_nothing(seed: int) -> None:
    check(*crashed(seed, ("lite",)), seed)


@pytest.mark.parametrize("seed", range(20))
def test_a_device_that_changes_its_profile_between_starts_loses_and_doubles_nothing(seed: int) -> None:
    check(*crashed(seed, PROFILES), seed)


def crashed(seed: int, profiles: tuple[ProfileName, ...]) -> tuple[World, Report]:
    """Kill an agent at random steps, start it again in one of the profiles; return its world, and what it says last."""
    rng = random.Random(seed)
    world = World(seed, lines_with_faults(rng, rng.randint(50, 600)), events_per_s=seed % 2 * 30.0)
    for _ in range(rng.randint(1, 12)):
        world.plan = plan_of(0, rng.choice(profiles))
        world.disk.crash_after = rng.randint(0, 60 + seed % 2 * 140)
        try:
            report = world.run()
        except Crash:
            world.crash()
            continue
        world.disk.crash_after = None
        return world, report
    world.disk.crash_after = None
    world.plan = plan_of(0, profiles[seed % len(profiles)])
    return world, world.run()


def test_a_lite_device_closes_windows_early_that_its_budget_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    day = (Windows("telemetry_windows", 86_400_000, SENSORS, measures=RANKED),)
    source, sizes = lines(3, 1_500), [100] * 15
    whole = window_rows(groups("lite", source, sizes, day))
    monkeypatch.setattr(lite_windows, "LITE_LIMITS", Limits(size_bytes=10_000))
    found = groups("lite", source, sizes, day)
    parts = window_rows(found)
    assert len(parts) > 2 * len(whole) > 0
    said = [count for group in found for count in group.meta.counts if count.stream == SCORED.id]
    counted = sum(count.count for count in said if count.fate in ("kept", "aggregated"))
    for rows in (whole, parts):
        assert sum(row["count"] for row in rows) == len(SENSORS) * counted


def window_rows(found: list[Group]) -> list[Json]:
    """Return the rows of windows in what a device made."""
    sealed = [batch for group in found for batch in group.batches if batch.contract == "telemetry_windows"]
    return [row for batch in sealed for row in rows_of(CONTRACTS["telemetry_windows"], batch.data)]
