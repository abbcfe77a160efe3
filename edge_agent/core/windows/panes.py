"""Tumbling and sliding windows: a grid of panes as long as the slide, of which each window is a whole number.

An event is taken in once, by its pane; a row merges the panes of its window. Tumbling windows are those with one pane.
"""

from collections.abc import Callable, Iterable
from typing import Final, Generic

from contracts.bundle import Windows
from edge_agent.core.windows.held import Aggregate, ClosedWindow, Held, PartT, Track
from edge_agent.core.windows.marks import Counted, WindowMark, joined, plan_key

ALWAYS_US: Final = -(2**63)  # before every event


class _Subject(Generic[PartT]):
    """What one subject has open: panes by the grid's start. Windows that end at or before `newest` are closed."""

    __slots__ = ("factor", "newest_us", "pane_us", "panes", "since_us")

    def __init__(self, factor: int, pane_us: int, since_us: int) -> None:
        self.factor = factor
        self.pane_us = pane_us
        # The pane with this moment begins at it: rows on another grid were written for what came before.
        self.since_us = since_us
        self.newest_us = ALWAYS_US
        self.panes: dict[int, Held[PartT]] = {}

    def grid(self, time_us: int) -> int:
        return time_us // self.pane_us * self.pane_us

    def begin(self, start: int) -> int:
        """Return the first moment of the pane at `start` of the grid."""
        return self.since_us if start < self.since_us < start + self.pane_us else start


class Panes(Generic[PartT]):
    """The open panes of one plan; `factor` is how much coarser windows that open from now on are."""

    def __init__(self, plan: Windows, aggregate: Callable[[], Aggregate[PartT]]) -> None:
        self.factor = 1
        self._plan = plan
        self._key = plan_key(plan)
        self._aggregate = aggregate
        self._pane_us = plan.pane_ms * 1_000
        self._overlap = plan.overlap
        self._subjects: dict[str, _Subject[PartT]] = {}

    def restore(self, mark: WindowMark) -> None:
        """Open what a mark says, without values."""
        track = self._subjects.get(mark.subject)
        if track is None:
            track = self._subjects[mark.subject] = _Subject(mark.factor, self._pane_us * mark.factor, ALWAYS_US)
        grid = track.grid(mark.start_us)
        if grid != mark.start_us:
            track.since_us = mark.start_us
        track.newest_us = max(track.newest_us, grid)
        track.panes[grid] = Held(mark, self._aggregate())

    def refill(self, part: PartT) -> None:
        """Put back the values of events that are in a restored pane; others are passed over."""
        track = self._subjects.get(part.subject)
        held = track.panes.get(track.grid(part.first_us)) if track is not None else None
        if held is None:
            return
        inside = part.within((held.mark.start_us, part.last_us), (held.mark.first_seq, held.mark.last_seq))
        if inside is not None:
            held.refill(inside)

    def take(self, part: PartT) -> list[ClosedWindow]:
        """Take in events of one pane; return the windows that closed, and those of events that came too late."""
        closed: list[ClosedWindow] = []
        track = self._subjects.get(part.subject)
        if track is None:
            track = self._subjects[part.subject] = self._opened(ALWAYS_US)
        start = track.grid(part.first_us)
        if start > track.newest_us and track.panes:
            if track.factor == self.factor:
                closed = self._advance(part.subject, track, start)
            else:
                end = track.newest_us + track.pane_us
                closed = self.flush(part.subject)
                track = self._subjects[part.subject] = self._opened(end)
                start = track.grid(part.first_us)
                if start >= end:
                    track.since_us = ALWAYS_US
        elif start < track.newest_us or part.first_us < track.begin(start):
            closed, is_held = self._late(track, start, part)
            if not is_held:
                return closed
        track.newest_us = max(track.newest_us, start)
        self._put(track, start, part)
        return closed

    def flush(self, subject: str) -> list[ClosedWindow]:
        """Close all that a subject has open."""
        track = self._subjects.pop(subject)
        return self._written(subject, track, track.newest_us)

    def forget(self, subject: str) -> None:
        """Let go of all that a subject has open, without rows."""
        del self._subjects[subject]

    def tracks(self) -> Iterable[Track[PartT]]:
        """Return every subject with what it has open."""
        return ((subject, track.panes.values()) for subject, track in self._subjects.items())

    def _opened(self, since_us: int) -> _Subject[PartT]:
        return _Subject(self.factor, self._pane_us * self.factor, since_us)

    def _put(self, track: _Subject[PartT], start: int, part: PartT) -> None:
        held = track.panes.get(start)
        if held is None:
            mark = self._mark(part, part.subject, track.begin(start), track.factor)
            held = track.panes[start] = Held(mark, self._aggregate())
        else:
            held.mark = joined(held.mark, part)
        held.aggregate.take(part)

    def _advance(self, subject: str, track: _Subject[PartT], start: int) -> list[ClosedWindow]:
        """Close the windows that end at or before `start`, and let go of panes that no open window has."""
        length = self._overlap * track.pane_us
        closed = self._written(subject, track, start - length)
        for pane in [pane for pane in track.panes if pane <= start - length]:
            del track.panes[pane]
        return closed

    def _late(self, track: _Subject[PartT], start: int, part: PartT) -> tuple[list[ClosedWindow], bool]:
        """Write further rows for the closed windows that late events are in; say whether open ones have them too."""
        length = self._overlap * track.pane_us
        is_held = start > track.newest_us - length and part.first_us >= track.begin(start)
        last = min(start, track.newest_us - length) if is_held else start
        starts = range(start - length + track.pane_us, last + 1, track.pane_us)
        if not starts:
            return [], is_held
        alone = self._aggregate()
        alone.take(part)
        marks = (self._mark(part, part.subject, window, track.factor) for window in starts)
        return [self._row(mark, track, alone) for mark in marks], is_held

    def _written(self, subject: str, track: _Subject[PartT], upto: int) -> list[ClosedWindow]:
        """Return the open windows that begin at or before `upto`, the oldest first."""
        pane, length = track.pane_us, self._overlap * track.pane_us
        closed = track.newest_us - length  # the last window that is closed already
        starts = {
            start for at in track.panes for start in range(max(at - length, closed) + pane, min(at, upto) + 1, pane)
        }
        rows = []
        for start in sorted(starts):
            inside = [held for at in range(start, start + length, pane) if (held := track.panes.get(at)) is not None]
            mark = self._mark(inside[0].mark, subject, start, track.factor)
            for held in inside[1:]:
                mark = joined(mark, held.mark)
            rows.append(self._row(mark, track, self._merged(inside)))
        return rows

    def _merged(self, panes: list[Held[PartT]]) -> Aggregate[PartT]:
        if len(panes) == 1:
            return panes[0].aggregate
        whole = panes[0].aggregate.copy()
        for held in panes[1:]:
            whole.absorb(held.aggregate)
        return whole

    def _mark(self, counted: Counted, subject: str, start_us: int, factor: int) -> WindowMark:
        return WindowMark(
            subject, start_us, counted.first_seq, counted.last_seq, counted.kept, counted.count, self._key, factor
        )

    def _row(self, mark: WindowMark, track: _Subject[PartT], whole: Aggregate[PartT]) -> ClosedWindow:
        summary = whole.summary(self._plan.measures, sketch=self._plan.sketch)
        return ClosedWindow(self._plan, mark, self._plan.window_ms * track.factor, summary)
