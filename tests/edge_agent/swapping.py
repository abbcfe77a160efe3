"""What the tests of swaps play with: releases on a disk that may stop at any step, and a simulated agent over them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from contracts import bundle as bundles
from contracts import releases
from contracts.bundle import BUNDLE_FILE, Bundle, Release, Stream, Windows
from contracts.contract import Contract, Field, FieldType
from contracts.edge_rules import Compare, Drop, EdgeRule
from contracts.errors import FieldlakeError
from contracts.releases import Announcement
from edge_agent import bundle_start
from edge_agent.adapters import bundle_files
from edge_agent.adapters.bundle_loading import BundleLoading
from edge_agent.adapters.bundle_shelf import BundleShelf
from edge_agent.agent import Agent
from edge_agent.bundle_ports import Done
from edge_agent.bundle_swaps import BundleSwaps
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.config import ProfileName
from edge_agent.core.plan import Parts, Plan
from edge_agent.core.updates.rollout import Limits, Rollout
from edge_agent.core.updates.updates import Verdict
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS, SENSORS, Lake
from tests.edge_agent.simulated import DEVICE, World
from tests.edge_agent.worlds import Crash

# One that reads the newer form of telemetry: a field that no event must have.
WIDER: Contract = replace(
    CONTRACTS["telemetry"],
    version="1.1.0",
    fields=(*CONTRACTS["telemetry"].fields, Field(90, "operator_note", FieldType.STRING)),
)
EASY = Limits(events_min=60, look_events=10**9, trial_s=60.0, probation_s=3.0, restarts_max=10**9)


def dropping(below: int, version: int = 1) -> EdgeRule:
    """Return a rule that drops events by their first sensor."""
    return EdgeRule("low", version, Drop(), Compare("f1", "lt", below))


def release_of(
    number: int,
    rules: tuple[EdgeRule, ...] = (),
    window_ms: int = 10_000,
    telemetry: Contract = CONTRACTS["telemetry"],
    sensors: tuple[str, ...] = SENSORS,
) -> Bundle:
    """Return a bundle over all contracts, as it is published under a number."""
    contracts = tuple((CONTRACTS | {"telemetry": telemetry}).values())
    stream = Stream("telemetry", windows=(Windows("telemetry_windows", window_ms, sensors),), rules=rules)
    return Bundle(str(number), contracts, (stream,), release=Release("default", number))


def write_release(folder: Path, bundle: Bundle) -> None:
    """Put a release where the updating process would have put it."""
    assert bundle.release is not None
    target = folder / str(bundle.release.number)
    target.mkdir(parents=True)
    (target / BUNDLE_FILE).write_bytes(bundles.encode(bundle))


class Shelf(BundleShelf):
    """The real one, that stops before or after one of its writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.crash_after: int | None = None
        self.done: list[str] = []

    def activate(self, release: int) -> None:
        self._step()
        super().activate(release)
        self.done.append(f"activate {release}")
        self._step()

    def refuse(self, release: int, why: str) -> None:
        self._step()
        super().refuse(release, why)
        self.done.append(f"refuse {release}")
        self._step()

    def note(self, rollout: Rollout) -> None:
        self._step()
        super().note(rollout)
        self.done.append(f"note {rollout.state.value}")
        self._step()

    def _step(self) -> None:
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after < 0:
                raise Crash


class Looks:
    """Stands in for the updating process: it finds at once what was published last."""

    def __init__(self, shelf: BundleShelf) -> None:
        self._shelf = shelf
        self.published: int | None = None
        self._verdict: Verdict | None = None

    @property
    def runs(self) -> bool:
        return self._verdict is not None

    def start(self, now_s: float, announced: int = 0, known_time_ms: int = 0) -> None:
        active = self._shelf.active()
        is_new = self.published not in (None, active)
        outcome = "staged" if is_new else "current"
        if is_new and self.published in self._shelf.refusals():
            outcome = "refused"
        self._verdict = msgspec.convert(
            {"outcome": outcome, "release": self.published, "active": active, "timestamp_version": announced}, Verdict
        )

    def take(self, now_s: float) -> Verdict | None:
        verdict, self._verdict = self._verdict, None
        return verdict

    def close(self) -> None:
        self._verdict = None


class NowWorker:
    """Works at once, in the caller's thread."""

    def __init__(self) -> None:
        self._done: Done | None = None

    @property
    def works(self) -> bool:
        return self._done is not None

    def begin(self, job: Callable[[], Parts | None]) -> None:
        try:
            self._done = Done(job())
        except (FieldlakeError, OSError) as error:
            self._done = Done(error=error)

    def take(self) -> Done | None:
        done, self._done = self._done, None
        return done


class SwapWorld(World):
    """A world whose agent gets its bundles from a folder. `tweak` may change a plan that was loaded."""

    def __init__(
        self, folder: Path, seed: int, lines: list[bytes], events_per_s: float = 60.0, limits: Limits = EASY
    ) -> None:
        super().__init__(seed, lines, events_per_s)
        self.lake = Lake(DEVICE, versions=(WIDER,))
        self.folder, self.limits = folder, limits
        self.shelf = Shelf(folder)
        self.looks = Looks(self.shelf)
        self.memory = 60.0
        self.profile: ProfileName = "full"
        self.tweak: Callable[[Plan], Plan] = lambda plan: plan
        self.swaps: BundleSwaps | None = None
        self.on_swap: Callable[[], None] = lambda: None
        self.loading = BundleLoading(folder, ("telemetry",), self._plan_of)
        self.announced = 0

    def start(self, *, followed: bool = False) -> Agent:
        newest = self.spool().recovered.newest
        decided_by = newest.release if newest is not None else 0
        begun = bundle_start.begin(self.shelf, self.loading, decided_by, self.now_s)
        self.plan = begun.before or begun.plan
        agent = super().start(followed=followed)
        if begun.before is not None:
            agent._intake.adopt(Parts(begun.plan), self.now_ms())
        adopt = agent._intake.adopt

        def adopted(parts: Parts, now_ms: int) -> None:
            adopt(parts, now_ms)
            self.on_swap()

        agent._intake.adopt = adopted  # type: ignore[method-assign]
        updates = BundleUpdates(self.looks, self.rng.random, self.now_s)
        agent.bundles = self.swaps = BundleSwaps(
            begun.rollout,
            updates,
            self.shelf,
            self.loading.parts,
            NowWorker(),
            agent._intake,
            self,
            lambda: self.memory,
            self.limits,
        )
        return agent

    def stage(self, bundle: Bundle) -> None:
        """Let a release lie on the disk, and the agent hear of it."""
        write_release(self.folder, bundle)
        assert bundle.release is not None
        self.looks.published = bundle.release.number
        self.announced += 1
        if self.swaps is not None:
            self.swaps.heard(releases.encode(Announcement(self.announced)))

    def finish(self) -> Report:
        """Run to the end, over as many crashes as there are."""
        while True:
            try:
                return self.run()
            except Crash:
                self.crash()
                self.shelf.crash_after = None

    def _plan_of(self, bundle: Bundle, folder: Path) -> Plan:
        plan = bundle_files.plan_of(
            bundle, folder, device=DEVICE, shard=0, epoch=1_800_000_000, streams={"telemetry": False}, stores=True,
            profile=self.profile,
        )  # fmt: skip
        return self.tweak(plan)


def check(world: SwapWorld, report: Report, seed: int) -> None:
    """Assert that nothing is lost or there twice, in rows, windows and ledger, and that every window could go on."""
    telemetry, lake = report.streams["telemetry"], world.lake
    events = len(world.lines)
    assert (report.drained, report.unexplained, telemetry.observed, telemetry.lost) == (True, 0, events, 0), (
        f"seed={seed} {report}"
    )
    lake.assert_conserves(events)
    assert telemetry.kept == len(lake.rows("telemetry")), f"seed={seed}"
    windowed = sum(row["count"] for row in lake.rows("telemetry_windows"))
    assert windowed == len(SENSORS) * (telemetry.kept + telemetry.aggregated), f"seed={seed}"
