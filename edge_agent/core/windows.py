"""Tumbling windows by event time, one open at a time for each subject.

A window closes as soon as its subject has an event at or after the window's end, when its subject has been silent for
IDLE_ROWS_MAX events of the source, when the open windows together exceed OPEN_ROWS_MAX or OPEN_WINDOWS_MAX, and at the
end of the source. An event that comes after its window closed opens that window again, and a further row is written for
it: rows of one window add up by `count`, and name what they cover by `first_seq` and `last_seq`.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.core.events import Column

OPEN_ROWS_MAX: Final = 50_000  # events; 9 sensors of 8 bytes make 3.6 MB of the agent's 80
OPEN_WINDOWS_MAX: Final = 256  # subjects; each stands in the metadata of every spool record with some 40 bytes
IDLE_ROWS_MAX: Final = 100_000  # events; bounds what is read again at a start to some seconds
QUANTILES: Final = (0.5, 0.9, 0.99)
QUANTILE_NAMES: Final = ("p50", "p90", "p99")

Values: TypeAlias = NDArray[np.float64]


class WindowMark(Struct, frozen=True, array_like=True):
    """An open window without its values: enough to fill it again from the source."""

    subject: str
    start_us: int
    first_seq: int
    last_seq: int
    kept: int
    count: int


class Readings(Struct, frozen=True):
    """Valid events as the windows see them, in seq order; `values` has shape (events, sensors)."""

    seqs: NDArray[np.int64]
    subjects: list[str]
    times_us: NDArray[np.int64]
    values: Values
    kept: NDArray[np.bool_]


class ClosedWindow(Struct, frozen=True):
    """A window that will not change; `values` has shape (count, sensors)."""

    mark: WindowMark
    values: Values


class Windows:
    """The open windows of one stream."""

    def __init__(self, window_us: int, marks: Iterable[WindowMark] = ()) -> None:
        self._window_us = window_us
        self._open: dict[str, WindowMark] = {mark.subject: mark for mark in marks}
        self._parts: dict[str, list[Values]] = {subject: [] for subject in self._open}

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """The open windows."""
        return tuple(self._open.values())

    def resume_seq(self, next_seq: int) -> int:
        """Return the first event that must be read again to fill the open windows."""
        return min((mark.first_seq for mark in self._open.values()), default=next_seq)

    def refill(self, readings: Readings) -> None:
        """Put values back into windows whose marks were restored; events of windows closed since are passed over."""
        for subject, start_us, rows in _groups(readings, self._window_us):
            mark = self._open.get(subject)
            if mark is None or mark.start_us != start_us:
                continue
            inside = rows[(readings.seqs[rows] >= mark.first_seq) & (readings.seqs[rows] <= mark.last_seq)]
            if len(inside):
                self._parts[subject].append(readings.values[inside])

    def is_whole(self) -> bool:
        """Say whether every open window holds as many events as its mark says."""
        return all(sum(map(len, self._parts[subject])) == mark.count for subject, mark in self._open.items())

    def add(self, readings: Readings) -> list[ClosedWindow]:
        """Take in events; return the windows that closed."""
        closed: list[ClosedWindow] = []
        for subject, start_us, rows in _groups(readings, self._window_us):
            seqs, kept, values = readings.seqs[rows], readings.kept[rows], readings.values[rows]
            mark = WindowMark(subject, start_us, int(seqs[0]), int(seqs[-1]), int(kept.sum()), len(rows))
            held = self._open.get(subject)
            if held is not None and held.start_us == start_us:
                self._open[subject] = _joined(held, mark)
                self._parts[subject].append(values)
            elif held is not None and start_us < held.start_us:
                closed.append(ClosedWindow(mark, values))
            else:
                if held is not None:
                    closed.append(self._close(subject))
                self._open[subject] = mark
                self._parts[subject] = [values]
        if len(readings.seqs):
            closed.extend(self._close_beyond_limits(int(readings.seqs[-1])))
        return closed

    def close_all(self) -> list[ClosedWindow]:
        """Close every window: the source has ended."""
        return [self._close(subject) for subject in list(self._open)]

    def _close_beyond_limits(self, last_seq: int) -> list[ClosedWindow]:
        idle = [s for s, mark in self._open.items() if last_seq - mark.last_seq > IDLE_ROWS_MAX]
        closed = [self._close(subject) for subject in idle]
        while (
            len(self._open) > OPEN_WINDOWS_MAX or sum(mark.count for mark in self._open.values()) > OPEN_ROWS_MAX
        ) and self._open:
            closed.append(self._close(min(self._open, key=lambda subject: self._open[subject].first_seq)))
        return closed

    def _close(self, subject: str) -> ClosedWindow:
        return ClosedWindow(self._open.pop(subject), np.concatenate(self._parts.pop(subject)))


def rows_of(
    closed: list[ClosedWindow], sensors: tuple[str, ...], window_ms: int, subject_field: str, time_field: str
) -> dict[str, Column]:
    """Return closed windows as columns of a window contract: one row per window and sensor."""
    names = (subject_field, "sensor", time_field, "window_ms", "first_seq", "last_seq", "count", "kept")
    columns: dict[str, list[object]] = {name: [] for name in (*names, "min", "max", "mean", *QUANTILE_NAMES)}
    each = len(sensors)
    for window in closed:
        mark, values = window.mark, window.values
        common = (mark.subject, None, mark.start_us, window_ms, mark.first_seq, mark.last_seq, mark.count, mark.kept)
        for name, value in zip(names, common, strict=True):
            columns[name].extend(sensors if name == "sensor" else [value] * each)
        ordered = np.sort(values, axis=0)
        columns["min"].extend(ordered[0].tolist())
        columns["max"].extend(ordered[-1].tolist())
        columns["mean"].extend(ordered.mean(axis=0).tolist())
        for name, quantile in zip(QUANTILE_NAMES, QUANTILES, strict=True):
            columns[name].extend(_quantile(ordered, quantile).tolist())
    return dict(columns)


def _quantile(ordered: Values, quantile: float) -> Values:
    """Return a quantile of each column of sorted rows, linear between the two nearest.

    Not numpy's own: its first call takes 10 MB of the device's memory and it is slow on windows of a few rows.
    """
    place = quantile * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    below: Values = ordered[low]
    above: Values = ordered[high]
    between: Values = below + (above - below) * (place - low)
    return between


def _joined(held: WindowMark, more: WindowMark) -> WindowMark:
    return WindowMark(
        held.subject, held.start_us, held.first_seq, more.last_seq, held.kept + more.kept, held.count + more.count
    )


def _groups(readings: Readings, window_us: int) -> Iterable[tuple[str, int, NDArray[np.intp]]]:
    """Yield (subject, window start, rows in seq order), the windows of each subject from the oldest on."""
    if len(readings.seqs) == 0:
        return
    names, codes = np.unique(np.asarray(readings.subjects), return_inverse=True)
    starts = readings.times_us // window_us * window_us
    order = np.lexsort((starts, codes))
    changes = np.flatnonzero((np.diff(codes[order]) != 0) | (np.diff(starts[order]) != 0)) + 1
    for rows in np.split(order, changes):
        yield str(names[codes[rows[0]]]), int(starts[rows[0]]), rows
