"""Both implementations of windows behind one face, and events for them."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from contracts.bundle import Measure, WindowKind
from contracts.bundle import Windows as Plan
from edge_agent.core.windows import aggregates, parts, windows
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.marks import WindowMark
from edge_agent.core.windows.open_windows import Limits
from edge_agent.lite import aggregates as lite_aggregates
from edge_agent.lite import parts as lite_parts
from edge_agent.lite import windows as lite_windows

SENSORS: Final = ("a", "b")
EVERYTHING: Final = tuple(Measure)


class Event(NamedTuple):
    """One observed event; `values` are those of the sensors."""

    seq: int
    subject: str
    time_us: int
    kept: bool
    values: tuple[float, ...]


class Twin(NamedTuple):
    """One implementation."""

    name: str
    windows: Callable[[Sequence[Plan], Iterable[WindowMark], Limits], Any]
    readings: Callable[[Sequence[Event]], Any]
    parts: Callable[[Sequence[Event], Plan], list[Any]]
    aggregate: Callable[[Plan], Any]


def _numpy_readings(events: Sequence[Event]) -> parts.Readings:
    width = len(events[0].values) if events else 0
    return parts.Readings(
        np.array([event.seq for event in events], dtype=np.int64),
        [event.subject for event in events],
        np.array([event.time_us for event in events], dtype=np.int64),
        np.array([event.values for event in events], dtype=np.float64).reshape(len(events), width),
        np.array([event.kept for event in events], dtype=np.bool_),
    )


def _lite_readings(events: Sequence[Event]) -> lite_parts.Readings:
    return lite_parts.Readings(
        [event.seq for event in events],
        [event.subject for event in events],
        [event.time_us for event in events],
        [event.values for event in events],
        [event.kept for event in events],
    )


def _lite_parts(events: Sequence[Event], plan: Plan) -> list[lite_parts.Part]:
    return list(lite_parts.parts_of(lite_parts.by_subject(_lite_readings(events)), plan, range(len(plan.sensors))))


TWINS: Final = (
    Twin(
        "numpy",
        windows.Windows,
        _numpy_readings,
        lambda events, plan: parts.Ordered(_numpy_readings(events)).parts(plan, None),
        aggregates.of_plan,
    ),
    Twin("lite", lite_windows.Windows, _lite_readings, _lite_parts, lite_aggregates.of_plan),
)


def tumbling(window_ms: int, **changes: Any) -> Plan:
    """Return a plan that writes everything."""
    return Plan(**({"contract": "w", "window_ms": window_ms, "sensors": SENSORS, "measures": EVERYTHING} | changes))


def sliding(window_ms: int, slide_ms: int, **changes: Any) -> Plan:
    """Return a plan that writes everything."""
    return tumbling(window_ms, kind=WindowKind.SLIDING, slide_ms=slide_ms, **changes)


def sessions(gap_ms: int, stretch_ms: int = 86_400_000, **changes: Any) -> Plan:
    """Return a plan that writes everything."""
    return tumbling(stretch_ms, kind=WindowKind.SESSION, gap_ms=gap_ms, **changes)


def events_of(rows: Sequence[tuple[str, int, bool]], first_seq: int = 0) -> list[Event]:
    """Return events with whole numbers as values, so that sums are exact in any order."""
    return [
        Event(seq, subject, time_us, kept, (float(seq * 7 % 13), float(seq * 3 % 5 - 2)))
        for seq, (subject, time_us, kept) in enumerate(rows, first_seq)
    ]


def chunked(events: Sequence[Event], size: int) -> list[list[Event]]:
    """Return the events in chunks."""
    return [list(events[first : first + size]) for first in range(0, len(events), size)]


class Story(NamedTuple):
    """A source as a device meets it: uneven chunks whose times go on, with jumps, stand-still and late events."""

    chunks: list[list[Event]]
    rng: random.Random

    @property
    def events(self) -> list[Event]:
        """All of its events."""
        return [event for chunk in self.chunks for event in chunk]


def story(seed: int, *, in_order: bool = False) -> Story:
    """Return the story of a seed. Times are whole half milliseconds, so that events fall on every boundary."""
    rng = random.Random(seed)
    subjects = "zyx"[: rng.randint(1, 3)]
    steps = rng.choice([(0, 1), (0, 0, 0, 1, 2), (1, 2, 4, 9), (0, 1, 1, 40)])
    late = 0 if in_order else rng.choice([0, 6, 20])
    clock, rows = rng.randint(-50, 50), []
    for _ in range(rng.randint(0, 60)):
        clock += rng.choice(steps)
        time = clock - (rng.randint(0, late) if rng.random() < 0.3 else 0)
        rows.append((rng.choice(subjects), time * 500, rng.random() < 0.3))
    events, chunks = events_of(rows), []
    sizes = rng.choice([(1,), (1, 2, 3), (5, 11), (40,)])
    while events:
        size = rng.choice(sizes)
        chunks.append(events[:size])
        events = events[size:]
    return Story(chunks, rng)


def run(twin: Twin, plans: Sequence[Plan], chunks: Sequence[Sequence[Event]], limits: Limits) -> list[ClosedWindow]:
    """Return all rows of a source with an end."""
    opened = twin.windows(plans, (), limits)
    closed = [row for chunk in chunks for row in opened.add(twin.readings(chunk))]
    closed += opened.close_all()
    assert opened.marks == ()
    return closed
