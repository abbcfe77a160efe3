"""Bundles beside the agent's loop: a staged one is tried on live chunks, swapped in between two, and gone back from.

A swap, once the trial is over:

1. adopt     the next chunk is the release's, and nothing is read, written or made ready for it. Windows that it does
             not have end; their rows wait for the next group. Crash after: nothing has happened.
2. record    the spool's next group holds those rows and names the release. Crash after: the next start loads it, by
             that name, and finds that the rest is missing.
3. activate  the folder's link names the release. Crash after: as above.
4. note      the rollout is on probation.

Going back from a release in force:

1. refuse    it is not tried again. Crash after: the next start goes back.
2. adopt     the next chunk is decided by the bundle before. Crash after: the next start goes back.
3. record    as above. Crash after: the next start loads the bundle before, and notes why.
4. activate  the link names it.
5. note      the rollout is over.

The record is the point at which a swap has happened: a bundle that a start would not load never decides about an event
for good, and open windows are always those that it plans. What writes to the disk besides does so in a thread of its
own, one step after the other; nothing is decided about the rollout meanwhile.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from contracts.ports import Clock
from edge_agent.bundle_ports import Done, Shelf, Worker
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.codec import payload
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Parts
from edge_agent.core.updates import rollout as rollouts
from edge_agent.core.updates.comparison import Budget, Comparison, Judged
from edge_agent.core.updates.rollout import LIMITS, Decision, Limits, Rollout, State, Step
from edge_agent.core.updates.updates import Verdict
from edge_agent.report import BundleReport

MEMORY_S: Final = 1.0  # s between two looks at the memory; each costs a millisecond
RETRY_S: Final = 5.0  # s; a full disk does not empty faster
WORK_S: Final = 0.1  # s between two looks at work that goes on
CEILING_MB: Final = (
    128.0  # MB; what a device gives the agent: a release that needs more beside the active one is refused
)

_log = logging.getLogger(__name__)


class BundleSwaps:
    """Owns the rollout, and the parts of the bundle that is not in force: the release, or the one to go back to.

    `load` makes the parts of a release; it and all that writes to the shelf are the worker's jobs.
    """

    def __init__(
        self,
        rollout: Rollout,
        updates: BundleUpdates,
        shelf: Shelf,
        load: Callable[[int], Parts],
        worker: Worker,
        intake: Intake,
        clock: Clock,
        memory_mb: Callable[[], float | None],
        limits: Limits = LIMITS,
    ) -> None:
        self._rollout, self._updates, self._shelf, self._load, self._worker = rollout, updates, shelf, load, worker
        self._intake, self._clock, self._memory_mb, self._limits = intake, clock, memory_mb, limits
        self._writes: deque[Callable[[], None]] = deque()
        self._loading: int | None = None  # what the worker loads, where it does not write
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
    def _other(self) -> Parts | None:
        return self._intake.beside

    @property
    def is_busy(self) -> bool:
        """Whether something goes on beside the loop, or waits to be written."""
        return self._worker.works or bool(self._writes)

    @property
    def trouble(self) -> str:
        """What went wrong last, empty when nothing did since the last change of the rollout."""
        return self._last_trouble

    def heard(self, document: bytes) -> None:
        """Take an announcement."""
        self._updates.heard(document, self._clock.monotonic_s())

    def due_s(self, now_s: float) -> float:
        """When `turn` wants to be called next, on the caller's clock."""
        times = [self._updates.due_s(now_s)]
        if self._worker.works:
            times.append(now_s + WORK_S)
        elif self._writes:
            times.append(max(now_s, self._retry_s))
        elif self._rollout.release is not None:
            times.append(now_s + MEMORY_S)
        return min(times)

    def turn(self, now_s: float, known_time_ms: int = 0) -> None:
        """Do what is due between two chunks. Nothing here waits for disk, model or process."""
        if (verdict := self._updates.turn(now_s, known_time_ms)) is not None:
            self._heed(verdict)
        if self._worker.works:
            self._follow_work(now_s)
        elif self._writes:
            if now_s >= self._retry_s:
                self._begin_write()
        else:
            self._want()
        if not self.is_busy:
            self._look_at_memory(now_s)
            decision = rollouts.decide(self._rollout, now_s, self._limits)
            if decision is not None:
                self._carry_out(decision, now_s)

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
        """End what goes on beside the loop, and note how far the rollout is, so that the next start goes on there."""
        self._updates.close()
        if self._worker.works:
            return  # Cut short, as by a crash.
        try:
            while self._writes:
                self._writes[0]()
                self._writes.popleft()
            if self._rollout.release is not None:
                self._shelf.note(rollouts.apply(self._rollout, rollouts.Stopped(self._clock.monotonic_s())))
        except OSError as error:
            _log.warning("bundles: %s: the next start begins the trial anew", error)

    # What happens beside the loop.

    def _heed(self, verdict: Verdict) -> None:
        active = self._intake.parts.plan.release  # the shelf's link may come after
        if verdict.outcome != "staged" or verdict.release is None or active is None:
            return
        after = rollouts.apply(self._rollout, rollouts.Staged(verdict.release, active))
        if after is not self._rollout:
            self._drop()
            self._change(after)

    def _want(self) -> None:
        """Load what is wanted beside the bundle in force."""
        rollout, wanted = self._rollout, None
        if self._other is None and rollout.state is State.STAGED and not rollout.trial.errors:
            wanted = rollout.release
        elif self._other is None and rollout.state is State.ACTIVE and not self._no_way_back:
            wanted = rollout.previous
        if wanted is None:
            return
        if self._shelf.has(wanted):
            self._loading = release = wanted
            self._worker.begin(lambda: self._load(release))
        elif rollout.state is State.STAGED:
            self._change(Rollout(refused=rollout.refused, why=f"release {wanted} is gone from the disk"))
        else:
            self._no_way_back = "it is gone from the disk"

    def _begin_write(self) -> None:
        write = self._writes[0]
        # The updating process reads what is written here; its next run begins where this one stops.
        self._updates.close()
        self._worker.begin(write)

    def _follow_work(self, now_s: float) -> None:
        done = self._worker.take()
        if done is None:
            return
        loading, self._loading = self._loading, None
        if loading is not None:
            # A newer release may have been staged meanwhile.
            if loading in (self._rollout.release, self._rollout.previous) and self._other is None:
                self._loaded(loading, done, now_s)
        elif done.error is None:
            self._writes.popleft()
            self._last_trouble = ""
        else:
            self._retry_s = now_s + RETRY_S
            self._trouble(f"bundles: {done.error}: free some disk, it is tried again")

    def _loaded(self, release: int, done: Done, now_s: float) -> None:
        is_trial = self._rollout.state is State.STAGED
        if done.parts is None:
            text = f"{type(done.error).__name__}: {done.error}"
            if is_trial:
                self._fail(text)
            else:
                self._no_way_back = text
                self._trouble(f"release {release}, to go back to, cannot be loaded: {text}")
            return
        self._base_mb, self._grown_mb = self._memory_mb(), 0.0
        self._intake.beside = done.parts
        for name, stream in done.parts.streams.items():
            stream.plan.filter.inherit(self._intake.parts.streams[name].plan.filter)
        if is_trial:
            self._change(rollouts.apply(self._rollout, rollouts.Begun(now_s)))
            _log.info("bundle_on_trial release=%d", release)
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

    # What is decided between two chunks.

    def _carry_out(self, decision: Decision, now_s: float) -> None:
        release = self._rollout.release
        assert release is not None
        if decision.step is Step.PROMOTE:
            self._swap()  # Step 1, and step 2 with the next group.
            self._writes.append(lambda: self._shelf.activate(release))  # Step 3.
            self._conclude(decision, now_s)  # Step 4.
            self._compare()
        elif decision.step is Step.REFUSE and self._rollout.state is State.ACTIVE:
            self._go_back(release, decision, now_s)
        else:
            if decision.step is Step.REFUSE:
                self._writes.append(lambda: self._shelf.refuse(release, decision.why))
            self._drop()
            self._conclude(decision, now_s)

    def _go_back(self, release: int, decision: Decision, now_s: float) -> None:
        previous = self._rollout.previous
        assert previous is not None
        if self._other is None:
            if self._no_way_back:
                why = f"{decision.why}; it stays, for release {previous} cannot be loaded: publish another one"
                self._conclude(Decision(Step.SETTLE, why), now_s)
            return  # It is being loaded.
        if not self._is_refused:
            self._writes.append(lambda: self._shelf.refuse(release, decision.why))  # Step 1.
            self._is_refused = True
            return
        self._swap()  # Step 2, and step 3 with the next group.
        self._is_refused = False
        self._drop()
        self._writes.append(lambda: self._shelf.activate(previous))  # Step 4.
        self._conclude(decision, now_s)  # Step 5.

    def _swap(self) -> None:
        """Let the other bundle decide from the next chunk on."""
        assert self._other is not None
        self._part()
        before = self._intake.parts
        self._intake.adopt(self._other, self._clock.now_ms())
        self._intake.beside = before

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
        self._intake.beside = self._base_mb = None
        self._no_way_back = ""
        payload.forget_all_but(self._intake.parts.plan.dictionaries.values())

    # What the comparisons tell.

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
        """Go on with another rollout, and have it noted."""
        self._rollout = rollout
        self._last_trouble = ""
        self._writes.append(lambda: self._shelf.note(rollout))

    def _trouble(self, text: str) -> None:
        if text != self._last_trouble:
            _log.warning("%s", text)
        self._last_trouble = text
