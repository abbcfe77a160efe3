"""What people's decisions meant for their events, told to the lake: steps 5 to 7 of `edge_agent.consent`.

The spool's metadata is read a segment at a time, between two turns of the agent's loop, and one record is written at a
time. Whatever a crash leaves undone is done again: a decision is told once because the record that tells of it says up
to which number all are told, and a batch is settled once because the spool knows what records have settled.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from contracts.ports import Clock
from contracts.ranges import RangeSet
from edge_agent.consent import ConsentDesk
from edge_agent.core.consent.reckoning import Found, found_in
from edge_agent.core.consent.register import Decision
from edge_agent.core.derived import Told
from edge_agent.core.intake import Intake
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.spool import Group, Spool

SETTLED_MAX: Final = 64  # batches in one record: to seal as many empty ones takes some 15 ms, and live data wait
RETRY_S: Final = 1.0  # s; a disk that does not read or write now may later


class Lake(Struct, frozen=True):
    """What the courier knows: the ranges that the lake holds, and whether it has said so of all that was under way.

    `has_word` takes the moment since when nothing more was sent, and the present one, monotonic s.
    """

    committed: Callable[[], Mapping[str, RangeSet]]
    has_word: Callable[[float, float], bool]


class _Reading:
    """A decision whose rows are looked for."""

    def __init__(self, decision: Decision, segments: list[int], *, settles: bool) -> None:
        self.decision = decision
        self.segments = segments
        self.settles = settles
        self.found = Found()


class ConsentAccounts:
    """Goes through the open decisions, oldest first. Runs in the agent's thread."""

    def __init__(self, desk: ConsentDesk, spool: Spool, intake: Intake, lake: Lake, clock: Clock) -> None:
        self._desk = desk
        self._spool = spool
        self._intake = intake
        self._lake = lake
        self._clock = clock
        self._reading: _Reading | None = None
        self._damages: list[Damage] = []
        self._retry_s = 0.0

    def is_due(self, now_s: float) -> bool:
        """Say whether `advance` has something to do."""
        return (
            self._intake.can_audit
            and now_s >= self._retry_s
            and (
                self._reading is not None
                or bool(self._damages)
                or self._desk.is_unfinished
                or self._next(now_s) is not None
            )
        )

    def advance(self, now_s: float) -> Group | None:
        """Do the next small part; return a record to be made durable before the next call, if there is one.

        Raises OSError: the same is tried again some time later.
        """
        try:
            return self._advance(now_s)
        except OSError:
            self._retry_s = now_s + RETRY_S
            raise

    def _advance(self, now_s: float) -> Group | None:
        self._desk.destroy_rest()
        if self._damages:
            part, self._damages = self._damages[:SETTLED_MAX], self._damages[SETTLED_MAX:]
            return self._intake.settle(tuple(part), self._clock.now_ms())  # Step 6.
        reading = self._reading
        if reading is None:
            decision = self._next(now_s)
            if decision is None:
                return None
            settles = decision.number <= self._intake.audited
            segments = [segment.number for segment in self._spool.segments] if decision.key else []
            reading = self._reading = _Reading(decision, segments, settles=settles)
        if reading.segments:
            self._read(reading)
            return None
        self._reading = None
        if not reading.settles:
            told = tuple(self._told(reading.decision, reading.found))
            return self._intake.audit(told, reading.decision.number, self._clock.now_ms())  # Step 5.
        self._desk.close(reading.decision.number)  # Step 7.
        return None

    def _next(self, now_s: float) -> Decision | None:
        """Return a decision that nothing tells of yet, or one that may be settled and closed."""
        decisions = self._desk.register.open
        untold = next((one for one in decisions if one.number > self._intake.audited), None)
        return untold or next((one for one in decisions if self._may_settle(one, now_s)), None)

    def _may_settle(self, decision: Decision, now_s: float) -> bool:
        return not decision.key or self._lake.has_word(self._desk.refused_s(decision.number), now_s)

    def _read(self, reading: _Reading) -> None:
        metas = self._spool.metas(reading.segments[0])
        found = found_in(metas, reading.decision.key, self._lake.committed(), self._spool.settled)
        reading.segments.pop(0)
        if reading.settles:
            # A contract that no bundle has any more: what cannot be opened is found as damage when one has it again.
            self._damages += filter(self._intake.may_settle, found.damages)
        else:
            reading.found = reading.found.joined(found)

    def _told(self, decision: Decision, found: Found) -> list[Told]:
        """Return a row for each stream that needs consent, and for each of which something was found."""
        streams = sorted({*self._desk.contracts, *found.spool, *found.ring})
        return [
            Told(
                decision.person, decision.number, decision.standing.value, decision.decided_at_ms, stream,
                decision.waited.get(stream, 0), found.spool.get(stream, 0), found.ring.get(stream, 0),
            )
            for stream in streams
        ]  # fmt: skip
