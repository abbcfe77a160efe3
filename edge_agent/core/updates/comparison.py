"""Two bundles over the same live chunks of a stream: one decides, and what the other would have done is counted.

The other one remembers what has truly travelled and never what it would have sent itself: its opinion of a chunk is the
one that it would act on if it came into force now, and when it does, nothing must be taught to it.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct

from edge_agent.core.events import Events
from edge_agent.core.profile import Verdict
from edge_agent.core.stream import Stream

SHARE_MAX: Final = 0.25  # of the time; a device that reads as fast as it can loses no more by a trial
REFUSED_MAX: Final = 64  # events of a chunk that fail the other contract; with more, it would miss the chunk as a whole


class Judged(Struct, frozen=True):
    """How many of a chunk's events each of two bundles keeps, and the time that deciding took."""

    events: int
    deciding_s: float
    beside_s: float
    deciding_kept: int
    beside_kept: int
    both_kept: int


class Budget:
    """The time that may go into comparing, for all streams together; `clock_s` never goes back."""

    def __init__(self, clock_s: Callable[[], float], share_max: float = SHARE_MAX) -> None:
        self.clock_s = clock_s
        self._share_max = share_max
        self._begun_s = clock_s()
        self._spent_s = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether the next chunk should go without."""
        return self._spent_s > self._share_max * (self.clock_s() - self._begun_s)

    def spend(self, seconds: float) -> None:
        """Note what a comparison took."""
        self._spent_s += seconds


class Comparison:
    """One stream of the bundle in force, and the same stream of another bundle beside it.

    `judged` is told of every chunk that both have decided over, `failed` of an error, with whether it was the one in
    force that raised it. Such an error ends a chunk only where `spares` is false: else the chunk is kept, all of it.
    """

    def __init__(
        self,
        deciding: Stream,
        beside: Stream,
        budget: Budget,
        judged: Callable[[Judged], None],
        failed: Callable[[Exception, bool], None],
        *,
        spares: bool,
    ) -> None:
        self._deciding, self._beside, self._budget = deciding, beside, budget
        self._judged, self._failed, self._spares = judged, failed, spares
        self._is_same_form = deciding.plan.source == beside.plan.source

    def decide(self, events: Events) -> Verdict:
        """Return what the bundle in force decides."""
        if not len(events):
            return self._deciding.plan.filter.decide(events)
        clock_s = self._budget.clock_s
        begun_s = clock_s()
        try:
            verdict = self._deciding.plan.filter.decide(events)
        except Exception as error:
            if not self._spares:
                raise
            self._failed(error, True)
            return self._deciding.plan.filter.spare().decide(events)
        decided_s = clock_s()
        try:
            self._compare(events, verdict, decided_s - begun_s)
        except Exception as error:  # noqa: BLE001 - as above; nothing that is only tried may end the agent
            self._failed(error, False)
        self._budget.spend(clock_s() - decided_s)
        return verdict

    def _compare(self, events: Events, verdict: Verdict, deciding_s: float) -> None:
        beside = self._beside.plan.filter
        is_skipped = self._budget.is_spent
        if is_skipped and not beside.horizon_ms:
            return
        kept, beside_s = bytearray(len(events)), 0.0
        for first, chunk in self._seen_beside(events):
            end = first + len(chunk)
            if not is_skipped:
                begun_s = self._budget.clock_s()
                kept[first:end] = _bytes(beside.consider(chunk).keep)
                beside_s += self._budget.clock_s() - begun_s
            beside.refill(chunk, verdict.keep[first:end])
        if not is_skipped:
            mine, its = int.from_bytes(_bytes(verdict.keep), "little"), int.from_bytes(kept, "little")
            both = (mine & its).bit_count()
            self._judged(Judged(len(events), deciding_s, beside_s, mine.bit_count(), its.bit_count(), both))

    def _seen_beside(self, events: Events) -> list[tuple[int, Events]]:
        """Return the chunk as the other contract sees it, in runs without an event that fails it, and their places."""
        if self._is_same_form:
            return [(0, events)]
        checked = self._beside.read(0, events.lines)
        seen, runs, first = checked.events, list[tuple[int, Events]](), 0
        if len(checked.refused) > REFUSED_MAX:
            return runs
        ends = [*(refused.seq for refused in checked.refused), len(events)]
        for passed, end in enumerate(ends):
            if end > first:
                here = slice(first - passed, end - passed)
                columns: dict[str, Any] = {name: column[here] for name, column in seen.columns.items()}
                runs.append((first, Events(events.seqs[first:end], columns, seen.lines[here], seen.values[here])))
            first = end + 1
        return runs


def _bytes(mask: Any) -> bytes:
    """Return a truth value per byte, from an array of them or from a list."""
    return bytes(mask) if isinstance(mask, list) else mask.tobytes()
