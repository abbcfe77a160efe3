"""Session windows: runs of a subject's events that are at most the gap apart, one open at a time for each subject.

A session never crosses a whole multiple of the plan's `window_ms`. An event before the open session's first is late and
becomes a session of its own: the session grows at its end only, so its mark says exactly which events are in it.
"""

from collections.abc import Callable, Iterable
from typing import Generic

from contracts.bundle import Windows
from edge_agent.core.windows.held import Aggregate, ClosedWindow, Held, PartT, Track
from edge_agent.core.windows.marks import WindowMark, joined, plan_key


class Sessions(Generic[PartT]):
    """The open sessions of one plan; `factor` is how much longer the gap is in sessions that open from now on."""

    def __init__(self, plan: Windows, aggregate: Callable[[], Aggregate[PartT]]) -> None:
        assert plan.gap_ms is not None
        self.factor = 1
        self._plan = plan
        self._key = plan_key(plan)
        self._aggregate = aggregate
        self._gap_us = plan.gap_ms * 1_000
        self._stretch_us = plan.window_ms * 1_000
        self._open: dict[str, Held[PartT]] = {}

    def restore(self, mark: WindowMark) -> None:
        """Open what a mark says, without values."""
        self._open[mark.subject] = Held(mark, self._aggregate())

    def refill(self, part: PartT) -> None:
        """Put back the values of events that are in a restored session; others are passed over."""
        held = self._open.get(part.subject)
        if held is None:
            return
        mark = held.mark
        inside = part.within((mark.start_us, mark.end_us), (mark.first_seq, mark.last_seq))
        if inside is not None:
            held.refill(inside)

    def take(self, part: PartT) -> list[ClosedWindow]:
        """Take in a run of events; return the session that closed, and that of events that came too late."""
        held = self._open.get(part.subject)
        if held is None:
            self._begin(part)
            return []
        closed: list[ClosedWindow] = []
        start = held.mark.start_us
        rest: PartT | None = part
        if part.first_us < start:
            late = part.within((part.first_us, start - 1))
            assert late is not None
            closed.append(self._alone(late))
            rest = part.within((start, part.last_us))
        if rest is not None and self._continues(held.mark, rest):
            held.mark = joined(held.mark, rest, max(held.mark.end_us, rest.last_us) - start)
            held.aggregate.take(rest)
        elif rest is not None:
            closed.extend(self.flush(part.subject))
            self._begin(rest)
        return closed

    def flush(self, subject: str) -> list[ClosedWindow]:
        """Close the session that a subject has open."""
        held = self._open.pop(subject)
        return [self._row(held.mark, held.aggregate)]

    def forget(self, subject: str) -> None:
        """Let go of all that a subject has open, without rows."""
        del self._open[subject]

    def tracks(self) -> Iterable[Track[PartT]]:
        """Return every subject with what it has open."""
        return ((subject, (held,)) for subject, held in self._open.items())

    def _continues(self, mark: WindowMark, part: PartT) -> bool:
        is_near = part.first_us - mark.end_us <= self._gap_us * mark.factor
        return is_near and part.first_us // self._stretch_us == mark.start_us // self._stretch_us

    def _begin(self, part: PartT) -> None:
        held = self._open[part.subject] = Held(self._mark(part), self._aggregate())
        held.aggregate.take(part)

    def _alone(self, late: PartT) -> ClosedWindow:
        aggregate = self._aggregate()
        aggregate.take(late)
        return self._row(self._mark(late), aggregate)

    def _mark(self, part: PartT) -> WindowMark:
        return WindowMark(
            part.subject,
            part.first_us,
            part.first_seq,
            part.last_seq,
            part.kept,
            part.count,
            self._key,
            self.factor,
            part.last_us - part.first_us,
        )

    def _row(self, mark: WindowMark, aggregate: Aggregate[PartT]) -> ClosedWindow:
        # The last event is inside too, hence a millisecond more than lies between the two.
        length_ms = mark.extent_us // 1_000 + 1
        return ClosedWindow(
            self._plan, mark, length_ms, aggregate.summary(self._plan.measures, sketch=self._plan.sketch)
        )
