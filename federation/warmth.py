"""How warm the engine is, and how long to rest between two queries that warm it. Pure."""

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Final

from msgspec import Struct

WINDOW_QUERIES: Final = 200  # queries; the 95th percentile then rests on ten of them
# Of the time. A JVM compiles its hot paths within about four thousand queries; taking all of a small machine for that
# starves the devices, the log and the tables, which then cannot answer either.
BUSY_SHARE: Final = 0.5
PAUSE_WHEN_DONE_S: Final = 5.0  # seconds; keeps the figures current without taking part in anything


class QueryWarmth(Struct, frozen=True):
    """Figures of one canned query: how often it ran, and percentiles over its newest runs."""

    queries: int
    p50_ms: float
    p95_ms: float


class Durations:
    """The newest durations of one query."""

    def __init__(self) -> None:
        self.queries = 0
        self._newest: deque[float] = deque(maxlen=WINDOW_QUERIES)

    def add(self, duration_ms: float) -> None:
        """Count one run."""
        self._newest.append(duration_ms)
        self.queries += 1

    def warmth(self) -> QueryWarmth | None:
        """Return the figures over the newest window; None before the first run."""
        if not self._newest:
            return None
        return QueryWarmth(self.queries, percentile(self._newest, 0.5), percentile(self._newest, 0.95))


def percentile(values: Sequence[float] | deque[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed; needs one value or more."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def pause_s(duration_s: float, queries: int, queries_max: int) -> float:
    """Return how long to rest after a query that took `duration_s`: half of the time, nearly always once
    `queries_max` queries have run.
    """
    return PAUSE_WHEN_DONE_S if queries >= queries_max else duration_s * (1 / BUSY_SHARE - 1)
