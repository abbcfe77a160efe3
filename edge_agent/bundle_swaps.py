"""Bundles beside the agent's loop: a staged one is tried on live chunks, swapped in between two, and gone back from.

A swap, once the trial is over:

1. close     windows that the release does not have end; their rows are in the spool. Crash after: the bundle before
             goes on, later events of these windows make further rows.
2. activate  the folder's link names the release. Crash after: the next start loads it and finds that this is not noted.
3. adopt     the next chunk is the release's. Nothing is read from a disk or made ready here.
4. note      the rollout is on probation. Crash before: the next start makes it so.

Going back from a release in force:

1. refuse    it is not tried again. Crash after: the next start goes on with step 3.
2. close     as above, for the bundle before.
3. activate  the bundle before. Crash after: the next start loads it, and notes why.
4. adopt     the next chunk is that bundle's.
5. note      the rollout is over.

Only this order lets no chunk be decided by a bundle that a restart would not load: open windows that only the other one
has could not be filled again. Each step that writes is followed by the loop's other work, but for 2 to 4 and 2 to 3.
"""

import logging
from collections.abc import Callable
from typing import Final, Protocol

from msgspec import Struct

from contracts.ports import Clock
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.codec import payload
from edge_agent.core.intake import Intake, Parts
from edge_agent.core.spool.spool import Group
from edge_agent.core.updates import rollout as rollouts
from edge_agent.core.updates.comparison import Budget, Comparison, Judged
from edge_agent.core.updates.rollout import LIMITS, Decision, Limits, Rollout, State, Step
from edge_agent.core.updates.updates import Verdict
from edge_agent.report import BundleReport

MEMORY_S: Final = 1.0  # s between two looks at the memory; each costs a millisecond
RETRY_S: Final = 5.0  # s; a full disk does not empty faster
LOADING_S: Final = 0.1  # s between two looks at a release that is being loaded
CEILING_MB: Final = (
    128.0  # MB; what a device gives the agent: a release that needs more beside the active one is refused
)

_log = logging.getLogger(__name__)


class Loaded(Struct, frozen=True):
    """A release that is ready to decide, or why it is not."""

    release: int
    parts: Parts | None
    error: str = ""


class Shelf(Protocol):
    """The device's bundles on disk; see `adapters.bundle_shelf`."""

    def active(self) -> int | None:
        """Return the release in force."""
        ...

    def has(self, release: int) -> bool:
        """Say whether a release lies there."""
        ...

    def activate(self, release: int) -> None:
        """Put a release in force. Raises OSError."""
        ...

    def refuse(self, release: int, why: str) -> None:
        """Remember not to try a release again. Raises OSError."""
        ...

    def refusals(self) -> dict[int, str]:
        """Return the releases that are not tried again, and why. Raises OSError."""
        ...

    def rollout(self) -> Rollout:
        """Return what was noted last."""
        ...

    def note(self, rollout: Rollout) -> None:
        """Write down how the rollout stands. Raises OSError."""
        ...


class Loading(Protocol):
    """Releases on their way into memory; see `adapters.bundle_loading`."""

    @property
    def runs(self) -> bool:
        """Whether a release was asked for and not taken yet."""
        ...

    def begin(self, release: int) -> None:
        """Begin to load a release."""
        ...

    def take(self) -> Loaded | None:
        """Return what was loaded."""
        ...


class BundleSwaps:
    """Owns the rollout, and the parts of the bundle that is not in force: the release, or the one to go back to."""

    def __init__(
        self,
        rollout: Rollout,
        updates: BundleUpdates,
        shelf: Shelf,
        loading: Loading,
        intake: Intake,
        clock: Clock,
        memory_mb: Callable[[], float | None],
        limits: Limits = LIMITS,
    ) -> None:
        self._rollout, self._updates, self._shelf, self._loading = rollout, updates, shelf, loading
        self._intake, self._clock, self._memory_mb, self._limits = intake, clock, memory_mb, limits
        self._other: Parts | None = None
        self._is_unnoted = False
        self._is_refused = False  # the release in force, on disk
        self._no_way_back = ""
        self._retry_s = 0.0
        self._base_mb: float | None = None
        self._grown_mb = 0.0
        self._look_s = 0.0
        self._last_trouble = ""

    @property
    def rollout(self) -> Rollout:
        """How the newest release fares."""
        return self._rollout

    @property
    def trouble(self) -> str:
        """What went wrong last, empty when nothing did since the last change of the rollout."""
        return self._last_trouble

    def heard(self, payload: bytes) -> None:
        """Take an announcement."""
        self._updates.heard(payload, self._clock.monotonic_s())

    def due_s(self, now_s: float) -> float:
        """When `turn` wants to be called next, on the caller's clock."""
        times = [self._updates.due_s(now_s)]
        if self._is_unnoted:
            times.append(max(now_s, self._retry_s))
        if self._loading.runs:
            times.append(now_s + LOADING_S)
        elif self._rollout.release is not None:
            times.append(max(now_s + MEMORY_S, self._retry_s))
        return min(times)

    def turn(self, now_s: float, put: Callable[[Group], bool], known_time_ms: int = 0) -> None:
        """Do what is due between two chunks; `put` makes a group durable and says whether it is."""
        if (verdict := self._updates.turn(now_s, known_time_ms)) is not None:
            self._heed(verdict)
        if now_s < self._retry_s:
            return
        try:
            if self._is_unnoted:
                self._shelf.note(self._rollout)
                self._is_unnoted = False
                return
            self._follow_loading(now_s)
            self._look_at_memory(now_s)
            decision = rollouts.decide(self._rollout, now_s, self._limits)
            if decision is not None:
                self._carry_out(decision, now_s, put)
        except OSError as error:
            self._retry_s = now_s + RETRY_S
            self._trouble(f"bundles: {error}: free some disk, it is tried again")

    def report(self) -> BundleReport:
        """Return the present state."""
        plan, trial, last = self._intake.parts.plan, self._rollout.trial, self._updates.last
        return BundleReport(
            version=plan.version,
            release=plan.release,
            state=self._rollout.state.value,
            candidate=self._rollout.release,
            why=self._rollout.why,
            events=trial.events,
            missed_ratio=round(trial.missed_ratio, 4),
            added_ratio=round(trial.added_ratio, 4),
            added_ms_per_chunk=round(trial.added_ms_per_chunk, 2),
            grown_mb=round(trial.grown_mb, 1),
            looked=last.outcome if last is not None else "",
            looked_detail=last.detail if last is not None else "",
        )

    def close(self) -> None:
        """End what goes on beside the loop."""
        self._updates.close()

    def _heed(self, verdict: Verdict) -> None:
        if verdict.outcome != "staged" or verdict.release is None or verdict.active is None:
            return
        after = rollouts.apply(self._rollout, rollouts.Staged(verdict.release, verdict.active))
        if after is not self._rollout:
            self._drop()
            self._change(after)

    def _follow_loading(self, now_s: float) -> None:
        """Begin to load what is wanted, and put what is loaded beside the bundle in force."""
        wanted = self._wanted()
        if self._loading.runs:
            loaded = self._loading.take()
            if loaded is not None and loaded.release == wanted:
                self._loaded(loaded, now_s)
        elif wanted is not None and self._shelf.has(wanted):
            self._loading.begin(wanted)
        elif wanted is not None and self._rollout.state is State.STAGED:
            self._change(Rollout(refused=self._rollout.refused, why=f"release {wanted} is gone from the disk"))

    def _wanted(self) -> int | None:
        if self._other is not None:
            return None
        if self._rollout.state is State.STAGED and not self._rollout.trial.errors:
            return self._rollout.release
        return self._rollout.previous if self._rollout.state is State.ACTIVE and not self._no_way_back else None

    def _loaded(self, loaded: Loaded, now_s: float) -> None:
        is_trial = self._rollout.state is State.STAGED
        if loaded.parts is None:
            if is_trial:
                self._change(rollouts.apply(self._rollout, rollouts.Failed(loaded.error)))
            else:
                self._no_way_back = loaded.error
                self._trouble(f"release {loaded.release}, to go back to, cannot be loaded: {loaded.error}")
            return
        self._base_mb, self._grown_mb = self._memory_mb(), 0.0
        self._other = loaded.parts
        for name, stream in loaded.parts.streams.items():
            stream.plan.filter.inherit(self._intake.parts.streams[name].plan.filter)
        if is_trial:
            self._change(rollouts.apply(self._rollout, rollouts.Begun(now_s)))
            _log.info("bundle_on_trial release=%d", loaded.release)
            if self._base_mb is not None and self._base_mb > CEILING_MB:
                self._fail(f"{self._base_mb:.0f} MB once it was loaded, a device has {CEILING_MB:.0f}")
        self._compare()

    def _look_at_memory(self, now_s: float) -> None:
        if self._base_mb is None or now_s < self._look_s:
            return
        self._look_s = now_s + MEMORY_S
        found = self._memory_mb()
        if found is not None:
            self._grown_mb = found - self._base_mb

    def _carry_out(self, decision: Decision, now_s: float, put: Callable[[Group], bool]) -> None:
        in_force = self._rollout.state is State.ACTIVE
        match decision.step:
            case Step.PROMOTE:
                self._promote(decision, now_s, put)
            case Step.REFUSE if in_force:
                self._go_back(decision, now_s, put)
            case Step.REFUSE:
                self._refuse(decision)
                self._drop()
                self._conclude(decision, now_s)
            case _:
                self._drop()
                self._conclude(decision, now_s)

    def _promote(self, decision: Decision, now_s: float, put: Callable[[Group], bool]) -> None:
        release = self._rollout.release
        assert release is not None
        if self._swap(release, put):  # Steps 1 to 3.
            self._conclude(decision, now_s)  # Step 4 is the next turn's.
            self._compare()

    def _go_back(self, decision: Decision, now_s: float, put: Callable[[Group], bool]) -> None:
        previous = self._rollout.previous
        assert previous is not None
        if self._other is None:
            if self._no_way_back or not self._shelf.has(previous):
                why = f"{decision.why}; it stays: release {previous} cannot be loaded: publish another one"
                self._conclude(Decision(Step.SETTLE, why), now_s)
            return  # It is being loaded.
        if not self._is_refused:
            self._refuse(decision)  # Step 1.
            self._is_refused = True
            return
        if self._swap(previous, put):  # Steps 2 to 4.
            self._is_refused = False
            self._drop()
            self._conclude(decision, now_s)  # Step 5 is the next turn's.

    def _refuse(self, decision: Decision) -> None:
        assert self._rollout.release is not None
        self._updates.close()  # it reads what is written here; the next run begins where this one stopped
        self._shelf.refuse(self._rollout.release, decision.why)

    def _swap(self, release: int, put: Callable[[Group], bool]) -> bool:
        """Let the other bundle be in force; say whether it is. Raises OSError."""
        assert self._other is not None
        self._updates.close()
        group = self._intake.close_for(self._other.plan, self._clock.now_ms())
        if group is not None and not put(group):
            return False
        self._shelf.activate(release)
        self._part()
        before = self._intake.parts
        self._intake.adopt(self._other)
        self._other = before
        return True

    def _compare(self) -> None:
        """Let each stream's chunks be decided by the bundle in force, and considered by the other one."""
        if self._other is None:
            return
        budget, on_probation = Budget(self._clock.monotonic_s), self._rollout.state is State.ACTIVE
        for name, stream in self._intake.parts.streams.items():
            comparison = Comparison(
                stream, self._other.streams[name], budget, self._judged, self._raised, spares=on_probation
            )
            stream.decide = comparison.decide

    def _part(self) -> None:
        for stream in self._intake.parts.streams.values():
            stream.decide = stream.plan.filter.decide

    def _drop(self) -> None:
        """Let go of the bundle that is not in force."""
        self._part()
        self._other = self._base_mb = None
        self._no_way_back = ""
        payload.forget_all_but(self._intake.parts.plan.dictionaries.values())

    def _judged(self, chunk: Judged) -> None:
        before, release = chunk.deciding_kept, chunk.beside_kept
        before_s, release_s = chunk.deciding_s, chunk.beside_s
        kind: type[rollouts.Compared | rollouts.Ran] = rollouts.Compared
        if self._rollout.state is State.ACTIVE:
            kind, before, release, before_s, release_s = rollouts.Ran, release, before, release_s, before_s
        both, grown_mb = chunk.both_kept, self._grown_mb
        event = kind(
            events=chunk.events, kept=before, missed=before - both, added=release - both,
            before_s=before_s, release_s=release_s, grown_mb=grown_mb,
        )  # fmt: skip
        self._rollout = rollouts.apply(self._rollout, event)

    def _raised(self, error: Exception, by_deciding: bool) -> None:
        text = f"{type(error).__name__}: {error}"
        if by_deciding == (self._rollout.state is State.ACTIVE):
            self._fail(text)
        else:
            self._trouble(f"release {self._rollout.previous} raised beside the one in force: {text}")

    def _fail(self, text: str) -> None:
        self._rollout = rollouts.apply(self._rollout, rollouts.Failed(text))

    def _conclude(self, decision: Decision, now_s: float) -> None:
        is_bad = decision.step is Step.REFUSE
        _log.log(logging.WARNING if is_bad else logging.INFO, "bundle_%s %s", decision.step.value, decision.why)
        self._change(rollouts.conclude(self._rollout, decision, now_s))

    def _change(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self._is_unnoted = True
        self._last_trouble = ""

    def _trouble(self, text: str) -> None:
        if text != self._last_trouble:
            _log.warning("%s", text)
        self._last_trouble = text
