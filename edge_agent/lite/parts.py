"""A chunk of events cut into parts by subject and time, without numpy. The twin of `edge_agent.core.windows.parts`."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from contracts.bundle import WindowKind, Windows
from edge_agent.core.windows.held import SEQ_MAX


class Readings(Struct, frozen=True):
    """Valid events as the windows see them, in seq order; `values` has one row of sensors for each."""

    seqs: Sequence[int]
    subjects: Sequence[str]
    times_us: Sequence[int]
    values: Sequence[Sequence[float]]
    kept: Sequence[bool]


class Event(Struct, frozen=True, array_like=True):
    """One event; events in order of time are in order of their first two fields."""

    time_us: int
    seq: int
    kept: bool
    row: Sequence[float]


class Part:
    """Events of one subject in order of time."""

    __slots__ = ("_events", "count", "first_seq", "first_us", "kept", "last_seq", "last_us", "subject")

    def __init__(self, subject: str, events: list[Event]) -> None:
        self._events = events
        self.subject = subject
        self.count = len(events)
        self.first_us, self.last_us = events[0].time_us, events[-1].time_us
        self.first_seq = min(event.seq for event in events)
        self.last_seq = max(event.seq for event in events)
        self.kept = sum(event.kept for event in events)

    @property
    def rows(self) -> list[Sequence[float]]:
        """Values by event."""
        return [event.row for event in self._events]

    @property
    def last(self) -> tuple[int, int, Sequence[float]]:
        """Time, number and values of the newest event."""
        newest = self._events[-1]
        return newest.time_us, newest.seq, newest.row

    def within(self, times_us: tuple[int, int], seqs: tuple[int, int] = (0, SEQ_MAX)) -> "Part | None":
        """Return the events inside both ranges, ends included; None when there are none."""
        inside = [
            event
            for event in self._events
            if times_us[0] <= event.time_us <= times_us[1] and seqs[0] <= event.seq <= seqs[1]
        ]
        return Part(self.subject, inside) if inside else None


def by_subject(readings: Readings) -> dict[str, list[Event]]:
    """Return the events of each subject in order of time, subjects in order of their names."""
    found: dict[str, list[Event]] = {name: [] for name in sorted(set(readings.subjects))}
    columns = (readings.seqs, readings.subjects, readings.times_us, readings.values, readings.kept)
    for seq, subject, time_us, row, kept in zip(*columns, strict=True):
        found[subject].append(Event(time_us, seq, kept, row))
    for events in found.values():
        events.sort(key=lambda event: event.time_us)
    return found


def parts_of(events: dict[str, list[Event]], plan: Windows, places: Sequence[int]) -> Iterator[Part]:
    """Yield the parts for one plan: by subject, then by pane or run. `places` are its columns."""
    cell_us = (plan.window_ms if plan.kind is WindowKind.SESSION else plan.pane_ms) * 1_000
    gap_us = plan.gap_ms * 1_000 if plan.gap_ms is not None else None
    for subject, mine in events.items():
        begin = 0
        for at in range(1, len(mine) + 1):
            if at < len(mine):
                before, after = mine[at - 1].time_us, mine[at].time_us
                near = gap_us is None or after - before <= gap_us
                if near and before // cell_us == after // cell_us:
                    continue
            picked = [Event(e.time_us, e.seq, e.kept, [e.row[place] for place in places]) for e in mine[begin:at]]
            yield Part(subject, picked)
            begin = at
