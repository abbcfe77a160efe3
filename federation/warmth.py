"""How warm the engine is, and how long to rest between two queries that warm it. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

from msgspec import Struct

WINDOW_QUERIES: Final = 200  # queries; the 95th percentile then rests on ten of them
# A JVM compiles its hot paths within about four thousand queries, most of it within the first one to two thousand.
SETTLING_QUERIES_MIN: Final = 1_000
SETTLED_GAIN_MAX: Final = 0.05  # settled when a window's median is less than 5 % better than the window's before it
BUSY_SHARE_SETTLED: Final = 0.5  # of the time; the rest belongs to those whose queries matter
PAUSE_WHEN_DONE_S: Final = 5.0  # seconds; keeps the figures current without taking part in anything


class QueryWarmth(Struct, frozen=True):
    """Figures of one canned query: how often it ran, and percentiles over its newest runs."""

    queries: int
    p50_ms: float
    p95_ms: float


class Durations:
    """The newest durations of one query, two windows of them."""

    def __init__(self) -> None:
        self.queries = 0
        self._newest: deque[float] = deque(maxlen=WINDOW_QUERIES)
        self._before: deque[float] = deque(maxlen=WINDOW_QUERIES)

    def add(self, duration_ms: float) -> None:
        """Count one run."""
        if len(self._newest) == WINDOW_QUERIES:
            self._before.append(self._newest[0])
        self._newest.append(duration_ms)
        self.queries += 1

    def warmth(self) -> QueryWarmth | None:
        """Return the figures over the newest window; None before the first run."""
        if not self._newest:
            return None
        return QueryWarmth(self.queries, percentile(self._newest, 0.5), percentile(self._newest, 0.95))

    def settled(self) -> bool:
        """Say whether the median has stopped falling."""
        if self.queries < SETTLING_QUERIES_MIN or len(self._before) < WINDOW_QUERIES:
            return False
        return percentile(self._newest, 0.5) > percentile(self._before, 0.5) * (1 - SETTLED_GAIN_MAX)


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed; needs one value or more."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def pause_s(duration_s: float, durations: Mapping[str, Durations], queries_max: int) -> float:
    """Return how long to rest after a query that took `duration_s`.

    No rest while every query still makes the next ones faster; half of the time once all have settled; nearly always
    once `queries_max` queries have run.
    """
    if sum(kept.queries for kept in durations.values()) >= queries_max:
        return PAUSE_WHEN_DONE_S
    if all(kept.settled() for kept in durations.values()):
        return duration_s * (1 / BUSY_SHARE_SETTLED - 1)
    return 0.0
