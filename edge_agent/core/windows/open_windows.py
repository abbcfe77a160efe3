"""All that a stream has open, and its limits.

A window closes as soon as its subject has an event at or after the window's end (a session: after the gap), when its
subject has been silent for `idle_rows` events of the source, when it reaches back further than `span_rows`, when too
much is open, and at the end of the source. An event that comes after its window closed makes a further row: rows of
one window add up by `count`, and name what they cover by `first_seq` and `last_seq`. Where a limit closes windows, it
closes all that a subject has open in a plan.
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Generic

from msgspec import Struct

from contracts.bundle import WindowKind, Windows
from edge_agent.core.windows.held import Aggregate, ClosedWindow, Held, Kind, PartT
from edge_agent.core.windows.marks import WindowMark, plan_key
from edge_agent.core.windows.panes import Panes
from edge_agent.core.windows.sessions import Sessions

COARSE_MS_MAX: Final = 86_400_000  # ms; a longer window than a day would hide the day it belongs to


class Limits(Struct, frozen=True):
    """What may be open at once.

    `windows` counts panes and sessions; each stands in the metadata of every spool record with some 50 bytes.
    `size_bytes` is for their values, 4 MB of the agent's 66. `idle_rows` is a subject's silence in events of the
    source. `span_rows` bounds what is read again at a start: ten minutes at 1,000 events/s.
    """

    windows: int = 256
    size_bytes: int = 4_194_304
    idle_rows: int = 100_000
    span_rows: int = 600_000


class OpenWindows(Generic[PartT]):
    """The open windows of one stream, in the order of its plans."""

    def __init__(
        self,
        plans: Sequence[Windows],
        marks: Iterable[WindowMark],
        aggregate: Callable[[Windows], Aggregate[PartT]],
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._plans = tuple(plans)
        self._kinds: list[Kind[PartT]] = [_kind_of(plan, aggregate) for plan in plans]
        owners = {plan_key(plan): kind for plan, kind in zip(plans, self._kinds, strict=True)}
        orphans = []
        for mark in marks:
            owner = owners.get(mark.plan)
            if owner is not None:
                owner.restore(mark)
            else:
                orphans.append(mark)
        self.orphans = tuple(orphans)

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """What is open."""
        return tuple(held.mark for held in self._held())

    @property
    def size_bytes(self) -> int:
        """What the values of all that is open take."""
        return sum(held.aggregate.size_bytes for held in self._held())

    def resume_seq(self, next_seq: int) -> int:
        """Return the first event that must be read again to fill what is open."""
        return min((held.mark.first_seq for held in self._held()), default=next_seq)

    def is_whole(self) -> bool:
        """Say whether all that is open holds as many events as its mark says."""
        return all(held.aggregate.count == held.mark.count for held in self._held())

    def forgo(self) -> int:
        """Go on with what was refilled where events are missing; return how many never sent are gone for good."""
        lost = 0
        for kind in self._kinds:
            missing = 0
            for subject, opened in list(kind.tracks()):
                for held in opened:
                    if held.aggregate.count != held.mark.count:
                        missing += held.forgo()
                if not any(held.mark.count for held in opened):
                    kind.forget(subject)
            lost = max(lost, missing)  # An event is in windows of several plans.
        return lost

    def coarsen(self, factor: int) -> None:
        """Let windows that open from now on be `factor` times as long as planned, at most a day; 1 ends it.

        Sessions get a gap that much longer. A subject's sliding windows are all written when it goes over.
        """
        if factor < 1:
            raise ValueError(f"windows: expected a factor of at least 1, found {factor}")
        for plan, kind in zip(self._plans, self._kinds, strict=True):
            length_ms = plan.window_ms if plan.gap_ms is None else plan.gap_ms
            kind.factor = max(1, min(factor, COARSE_MS_MAX // length_ms))

    def refill(self, parts: Iterable[Iterable[PartT]]) -> None:
        """Put values back into what was restored from marks; `parts` come by plan."""
        for kind, mine in zip(self._kinds, parts, strict=True):
            for part in mine:
                kind.refill(part)
        self._shrink()

    def take(self, parts: Iterable[Iterable[PartT]], last_seq: int) -> list[ClosedWindow]:
        """Take in a chunk, `parts` by plan; return the windows that closed. `last_seq` is the chunk's newest event."""
        closed: list[ClosedWindow] = []
        for kind, mine in zip(self._kinds, parts, strict=True):
            for part in mine:
                closed += kind.take(part)
        closed += self._close_beyond_limits(last_seq)
        self._shrink()
        return closed

    def close_all(self) -> list[ClosedWindow]:
        """Close everything: the source has ended."""
        return [row for kind in self._kinds for subject, _ in list(kind.tracks()) for row in kind.flush(subject)]

    def close_except(self, plans: Collection[Windows]) -> list[ClosedWindow]:
        """Close what is open in other plans than these."""
        return [
            row
            for plan, kind in zip(self._plans, self._kinds, strict=True)
            if plan not in plans
            for subject, _ in list(kind.tracks())
            for row in kind.flush(subject)
        ]

    def take_over(self, before: "OpenWindows[PartT]") -> None:
        """Go on with what another has open in plans that both have; that one must not be used any more."""
        theirs = dict(zip(before._plans, before._kinds, strict=True))
        self._kinds = [theirs.get(plan, mine) for plan, mine in zip(self._plans, self._kinds, strict=True)]

    def _held(self) -> Iterable[Held[PartT]]:
        return (held for kind in self._kinds for _, opened in kind.tracks() for held in opened)

    def _close_beyond_limits(self, last_seq: int) -> list[ClosedWindow]:
        limits = self._limits
        rest: list[tuple[int, Kind[PartT], str, int, int]] = []
        closed: list[ClosedWindow] = []
        for kind in self._kinds:
            for subject, opened in list(kind.tracks()):
                first, last, least = _measured(opened)
                if last_seq - last > limits.idle_rows or last_seq - first > limits.span_rows:
                    closed += kind.flush(subject)
                else:
                    rest.append((first, kind, subject, len(opened), least))
        windows, size = sum(entry[3] for entry in rest), sum(entry[4] for entry in rest)
        if windows > limits.windows or size > limits.size_bytes:
            rest.sort(key=lambda entry: entry[0])
            for _, kind, subject, count, least in rest:
                if windows <= limits.windows and size <= limits.size_bytes:
                    break
                closed += kind.flush(subject)
                windows, size = windows - count, size - least
        return closed

    def _shrink(self) -> None:
        """Bring what is open into the budget, the largest first; the limits above see to it that this succeeds."""
        aggregates = [held.aggregate for held in self._held()]
        excess = sum(aggregate.size_bytes for aggregate in aggregates) - self._limits.size_bytes
        if excess <= 0:
            return
        heap = [(-aggregate.size_bytes, place) for place, aggregate in enumerate(aggregates)]
        heapq.heapify(heap)
        while excess > 0 and heap:
            negative, place = heapq.heappop(heap)
            if aggregates[place].shrink():
                smaller = aggregates[place].size_bytes
                excess -= -negative - smaller
                heapq.heappush(heap, (-smaller, place))


class StreamWindows(Generic[PartT]):
    """The open windows of one stream: what both profiles' `Windows` share.

    `marks` are what was open when an earlier process ended; those that none of the plans owns any more are `orphans`,
    whose events the caller must account for.
    """

    def __init__(
        self,
        plans: Sequence[Windows],
        marks: Iterable[WindowMark],
        aggregate: Callable[[Windows], Aggregate[PartT]],
        limits: Limits,
    ) -> None:
        self._plans = tuple(plans)
        self.sensors = tuple(dict.fromkeys(sensor for plan in plans for sensor in plan.sensors))
        self._open = OpenWindows(self._plans, marks, aggregate, limits)
        self.orphans = self._open.orphans
        self.resume_seq = self._open.resume_seq
        self.is_whole = self._open.is_whole
        self.forgo = self._open.forgo
        self.coarsen = self._open.coarsen
        self.close_all = self._open.close_all
        self.close_except = self._open.close_except

    def take_over(self, before: "StreamWindows[PartT]") -> None:
        """Go on with what another has open in plans that both have; that one must not be used any more."""
        self._open.take_over(before._open)

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """What is open."""
        return self._open.marks

    @property
    def size_bytes(self) -> int:
        """What the values of all that is open take."""
        return self._open.size_bytes

    def _places(self, plan: Windows) -> list[int]:
        """Return the columns of a plan's sensors."""
        return [self.sensors.index(sensor) for sensor in plan.sensors]


def _kind_of(plan: Windows, aggregate: Callable[[Windows], Aggregate[PartT]]) -> Kind[PartT]:
    if plan.kind is WindowKind.SESSION:
        return Sessions(plan, lambda: aggregate(plan))
    return Panes(plan, lambda: aggregate(plan))


def _measured(opened: Iterable[Held[PartT]]) -> tuple[int, int, int]:
    """Return the first and the last event of a track, and the least size of its values."""
    first, last, least = [], [], 0
    for held in opened:
        first.append(held.mark.first_seq)
        last.append(held.mark.last_seq)
        least += held.aggregate.least_bytes
    return min(first), max(last), least
