"""How a staged bundle comes into force: tried beside the active one on the same live chunks, then swapped in, or not.

The shadow decides over every chunk that the active bundle decides over, and nothing that it says leaves the device.
What counts is what a user of the data would notice: events that would no longer be sent, events that would be sent on
top, time and memory. After the swap the bundle is on probation; what it breaks then sends it back to the one before.

No clock, no memory meter and no files in here: they come in as values, and what is to be done goes out as one.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from edge_agent.errors import IllegalStepError

REFUSED_MAX: Final = 50  # releases; the newest are kept, older ones are no longer published


class State(Enum):
    """Where a device stands with its newest bundle."""

    IDLE = "idle"  # the active bundle is the only one
    STAGED = "staged"  # another one lies on the disk, checked
    SHADOW = "shadow"  # it is loaded and decides beside the active one
    ACTIVE = "active"  # it is in force, on probation
    ROLLED_BACK = "rolled_back"  # it was refused; the one before is in force


class Step(Enum):
    """What can happen to it."""

    STAGE = "stage"
    BEGIN = "begin"
    PROMOTE = "promote"
    REFUSE = "refuse"
    SETTLE = "settle"
    RESTART = "restart"


# A release that arrives during a probation has no row: it waits until the updating process names it again.
NEXT: Final[dict[tuple[State, Step], State]] = {
    (State.IDLE, Step.STAGE): State.STAGED,
    (State.IDLE, Step.RESTART): State.IDLE,
    (State.STAGED, Step.STAGE): State.STAGED,  # a newer one takes its place
    (State.STAGED, Step.BEGIN): State.SHADOW,
    (State.STAGED, Step.REFUSE): State.ROLLED_BACK,  # it could not be loaded
    (State.STAGED, Step.RESTART): State.STAGED,
    (State.SHADOW, Step.STAGE): State.STAGED,
    (State.SHADOW, Step.PROMOTE): State.ACTIVE,
    (State.SHADOW, Step.REFUSE): State.ROLLED_BACK,
    (State.SHADOW, Step.RESTART): State.STAGED,  # what was loaded went with the process
    (State.ACTIVE, Step.SETTLE): State.IDLE,
    (State.ACTIVE, Step.REFUSE): State.ROLLED_BACK,
    (State.ACTIVE, Step.RESTART): State.ACTIVE,
    (State.ROLLED_BACK, Step.STAGE): State.STAGED,
    (State.ROLLED_BACK, Step.RESTART): State.ROLLED_BACK,
}


def step(state: State, happened: Step) -> State:
    """Follow the table. Raises IllegalStepError for a pair without a row, which is a defect of the caller."""
    if (after := NEXT.get((state, happened))) is None:
        raise IllegalStepError(f"rollout is {state.value}: {happened.value} has no row")
    return after


class Limits(Struct, frozen=True):
    """When a trial is long enough, and what it must not show. Every number has its reason beside it."""

    events_min: int = 20_000  # half a percent of kept events missed shows as 10 events when a tenth is kept
    trial_s: float = 600.0  # s; a quiet device does not wait longer, its few events would not say more
    look_events: int = 1_000  # events; below, a ratio is noise and refuses nothing
    look_chunks: int = 16  # chunks; the first ones pay for what is loaded lazily
    missed_ratio_max: float = 0.1  # of what the active bundle keeps; a filter of the same purpose stays far below
    added_ratio_max: float = 0.05  # of all events; beyond, the uplink carries half as much again at 10 % kept
    added_ms_per_chunk_max: float = 10.0  # ms; a quarter of what a chunk of 4,000 events may take at 100,000 a second
    stall_ms_max: float = 500.0  # ms for one chunk; live data waits as long, and a second is all it has to be visible
    added_mb_max: float = 8.0  # MB; what the full profile has between its 66 MB and its ceiling of 76, less a reserve
    errors_max: int = 0  # a bundle that raises once on live events will do so again
    probation_s: float = 300.0  # s; a leak of 2 MB a minute shows by then
    restarts_max: int = 2  # ends of the agent out of order within a trial or a probation; a third is no accident


LIMITS: Final = Limits()


class Trial(Struct, frozen=True):
    """What was measured so far. Times are of deciding alone; memory is the growth since the release was loaded."""

    events: int = 0
    chunks: int = 0
    kept: int = 0  # by the bundle to compare with
    missed: int = 0  # of these, not kept by the release
    added: int = 0  # kept by the release alone
    before_s: float = 0.0
    release_s: float = 0.0
    slowest_s: float = 0.0  # of the release
    errors: int = 0
    grown_mb: float = 0.0

    @property
    def missed_ratio(self) -> float:
        """Share of the kept events that the release would lose."""
        return self.missed / self.kept if self.kept else 0.0

    @property
    def added_ratio(self) -> float:
        """Share of all events that the release would send on top."""
        return self.added / self.events if self.events else 0.0

    @property
    def added_ms_per_chunk(self) -> float:
        """Time that the release takes more per chunk, in ms."""
        return 1_000.0 * (self.release_s - self.before_s) / self.chunks if self.chunks else 0.0


class Refused(Struct, frozen=True):
    """A release that is not tried again, and why."""

    release: int
    why: str


class Rollout(Struct, frozen=True):
    """All there is to know; it survives a restart in its JSON form. `previous` is what to go back to.

    A trial or probation began at `since_s` of this run of the agent, and took `passed_s` in runs before. `is_stopped`
    says that the last one ended in order: a device that is on for minutes at a time gets through a trial too.
    """

    state: State = State.IDLE
    release: int | None = None
    previous: int | None = None
    since_s: float = 0.0
    passed_s: float = 0.0
    is_stopped: bool = False
    trial: Trial = Trial()
    restarts: int = 0
    why: str = ""
    refused: tuple[Refused, ...] = ()


class Staged(Struct, frozen=True):
    """The updating process has put a release beside the active one."""

    release: int
    active: int


class Begun(Struct, frozen=True):
    """The release is loaded and decides from the next chunk on."""

    now_s: float


class Compared(Struct, frozen=True):
    """Both have decided over one chunk of live events."""

    events: int
    kept: int
    missed: int
    added: int
    before_s: float
    release_s: float
    grown_mb: float


class Ran(Struct, frozen=True):
    """The release in force has decided over one chunk; the one before, beside it now, would have `kept` so many.

    `missed` and `added` are by comparison with that one, as in a trial.
    """

    events: int
    before_s: float
    release_s: float
    grown_mb: float
    kept: int = 0
    missed: int = 0
    added: int = 0


class Failed(Struct, frozen=True):
    """The release raised an error: while it was loaded, beside the active one, or in force."""

    error: str


class Stopped(Struct, frozen=True):
    """The agent ends in order."""

    now_s: float


class Restarted(Struct, frozen=True):
    """The agent has begun anew, with a clock of its own."""

    now_s: float


Event: TypeAlias = Staged | Begun | Compared | Ran | Failed | Stopped | Restarted


class Decision(Struct, frozen=True):
    """What to do between two chunks: PROMOTE (swap), REFUSE (go back to `previous`, or drop the shadow) or SETTLE."""

    step: Step
    why: str


def apply(rollout: Rollout, event: Event) -> Rollout:
    """Return the rollout after an event. Raises IllegalStepError for an event that its state does not know."""
    match event:
        case Staged():
            return _staged(rollout, event)
        case Begun():
            return replace(rollout, state=step(rollout.state, Step.BEGIN), since_s=event.now_s, why="on trial")
        case Compared():
            return replace(rollout, trial=_summed(_trial(rollout, State.SHADOW), event))
        case Ran():
            return replace(rollout, trial=_summed(_trial(rollout, State.ACTIVE), event))
        case Failed():
            if rollout.state not in (State.STAGED, State.SHADOW, State.ACTIVE):
                raise IllegalStepError(f"rollout is {rollout.state.value}: no release that could fail")
            return replace(
                rollout, trial=replace(rollout.trial, errors=rollout.trial.errors + 1), why=f"raised: {event.error}"
            )
        case Stopped():
            return replace(rollout, passed_s=_passed_s(rollout, event.now_s), is_stopped=True)
        case Restarted():
            again = replace(rollout, state=step(rollout.state, Step.RESTART), since_s=event.now_s, is_stopped=False)
            if rollout.is_stopped or rollout.release is None:
                return again
            return replace(again, passed_s=0.0, trial=Trial(), restarts=rollout.restarts + 1)


def decide(rollout: Rollout, now_s: float, limits: Limits = LIMITS) -> Decision | None:
    """Return what to do now, None while there is nothing. It is carried out, then told by `conclude`."""
    if rollout.state not in (State.STAGED, State.SHADOW, State.ACTIVE):
        return None
    if (breach := _breach(rollout, limits)) is not None:
        return Decision(Step.REFUSE, f"release {rollout.release} refused {_after(rollout, now_s)}: {breach}")
    passed_s = _passed_s(rollout, now_s)
    if rollout.state is State.SHADOW and (rollout.trial.events >= limits.events_min or passed_s >= limits.trial_s):
        return Decision(
            Step.PROMOTE, f"release {rollout.release} swapped in {_after(rollout, now_s)}: {_shown(rollout.trial)}"
        )
    if rollout.state is State.ACTIVE and passed_s >= limits.probation_s:
        return Decision(Step.SETTLE, f"release {rollout.release} stays {_after(rollout, now_s)}")
    return None


def conclude(rollout: Rollout, decision: Decision, now_s: float) -> Rollout:
    """Return the rollout once a decision is carried out: what it says of the disk and the loaded bundle is true."""
    after = replace(
        rollout, state=step(rollout.state, decision.step), since_s=now_s, passed_s=0.0, trial=Trial(), restarts=0,
        why=decision.why,
    )  # fmt: skip
    if decision.step is Step.REFUSE:
        assert rollout.release is not None
        refused = (*rollout.refused, Refused(rollout.release, decision.why))
        newest = tuple(sorted(refused, key=lambda entry: entry.release))[-REFUSED_MAX:]
        return replace(after, release=None, previous=None, refused=newest)
    if decision.step is Step.SETTLE:
        return replace(after, release=None, previous=None)
    return after


def resumed(rollout: Rollout, active: int | None, refusals: Mapping[int, str], now_s: float) -> Rollout:
    """Return the rollout of an agent that begins anew; what the disk says rules, for the rollout is noted after it.

    `active` is the release in force, `refusals` are those that this agent does not take, and why.
    """
    rollout = replace(rollout, refused=tuple(entry for entry in rollout.refused if entry.release in refusals))
    release = rollout.release
    if release is None:
        return apply(rollout, Restarted(now_s))
    was_tried = rollout.state in (State.STAGED, State.SHADOW)
    if was_tried and active == release:
        # Put in force, and not noted.
        begun = rollout if rollout.state is State.SHADOW else apply(rollout, Begun(now_s))
        rollout = conclude(begun, Decision(Step.PROMOTE, f"release {release} was swapped in before a restart"), now_s)
    elif active != release and release in refusals:
        # Refused or gone back from, and not noted.
        return conclude(rollout, Decision(Step.REFUSE, refusals[release]), now_s)
    elif active != (rollout.previous if was_tried else release):
        return Rollout(refused=rollout.refused)  # somebody else has put another one in force
    rollout = apply(rollout, Restarted(now_s))
    if release in refusals:  # refused, and still in force
        return replace(rollout, trial=Trial(errors=1), why=refusals[release])
    return rollout


def is_refused(rollout: Rollout, release: int) -> bool:
    """Whether a release was tried here and refused."""
    return any(entry.release == release for entry in rollout.refused)


def _staged(rollout: Rollout, event: Staged) -> Rollout:
    """Take a release up; one that is refused, known already, or comes during a probation changes nothing."""
    is_known = rollout.release is not None and event.release <= rollout.release
    if rollout.state is State.ACTIVE or is_known or is_refused(rollout, event.release) or event.release == event.active:
        return rollout
    return replace(
        rollout, state=step(rollout.state, Step.STAGE), release=event.release, previous=event.active, passed_s=0.0,
        trial=Trial(), restarts=0, why="staged",
    )  # fmt: skip


def _trial(rollout: Rollout, state: State) -> Trial:
    if rollout.state is not state:
        raise IllegalStepError(f"rollout is {rollout.state.value}: a chunk counts only while it is {state.value}")
    return rollout.trial


def _summed(trial: Trial, event: Compared | Ran) -> Trial:
    return replace(
        trial,
        events=trial.events + event.events,
        chunks=trial.chunks + 1,
        kept=trial.kept + event.kept,
        missed=trial.missed + event.missed,
        added=trial.added + event.added,
        before_s=trial.before_s + event.before_s,
        release_s=trial.release_s + event.release_s,
        slowest_s=max(trial.slowest_s, event.release_s),
        grown_mb=max(trial.grown_mb, event.grown_mb),
    )


def _breach(rollout: Rollout, limits: Limits) -> str | None:
    """Return the first limit that is broken, in words; None when none is."""
    trial = rollout.trial
    if trial.errors > limits.errors_max:
        return rollout.why
    if rollout.restarts > limits.restarts_max:
        return f"the agent began anew {rollout.restarts} times, limit {limits.restarts_max}"
    if trial.grown_mb > limits.added_mb_max:
        return f"{trial.grown_mb:.1f} MB more memory, limit {limits.added_mb_max:g}"
    if 1_000.0 * trial.slowest_s > limits.stall_ms_max:
        return f"{1_000.0 * trial.slowest_s:.0f} ms for one chunk, limit {limits.stall_ms_max:g}"
    if trial.chunks >= limits.look_chunks and trial.added_ms_per_chunk > limits.added_ms_per_chunk_max:
        return f"{trial.added_ms_per_chunk:.1f} ms more per chunk, limit {limits.added_ms_per_chunk_max:g}"
    if trial.events >= limits.look_events and trial.missed_ratio > limits.missed_ratio_max:
        return f"{trial.missed_ratio:.1%} of the kept events missed, limit {limits.missed_ratio_max:.1%}"
    if trial.events >= limits.look_events and trial.added_ratio > limits.added_ratio_max:
        return f"{trial.added_ratio:.1%} of all events sent on top, limit {limits.added_ratio_max:.1%}"
    return None


def _passed_s(rollout: Rollout, now_s: float) -> float:
    here_s = now_s - rollout.since_s if rollout.state in (State.SHADOW, State.ACTIVE) else 0.0
    return rollout.passed_s + max(0.0, here_s)


def _after(rollout: Rollout, now_s: float) -> str:
    return f"after {rollout.trial.events:,} events in {_passed_s(rollout, now_s):.0f} s"


def _shown(trial: Trial) -> str:
    return (
        f"{trial.missed_ratio:.1%} of the kept events missed, {trial.added_ratio:.1%} of all added, "
        f"{trial.added_ms_per_chunk:+.1f} ms per chunk, {trial.grown_mb:+.1f} MB"
    )
