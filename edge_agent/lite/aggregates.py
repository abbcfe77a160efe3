"""What is known of the events of one window, without numpy. The twin of `edge_agent.core.windows.aggregates`.

A window that has to say quantiles holds its values and is exact. There is no sketch: its library takes 4 MB, and
numpy's 16 where that is installed. What exceeds the budget is written early instead; later events make further rows.
"""

import math
from array import array
from collections.abc import Collection, Sequence
from typing import Final

from msgspec import Struct

from contracts.bundle import RANKED, Measure, Windows
from edge_agent.core.windows.held import Summary
from edge_agent.lite.parts import Part

RANKS: Final = {Measure.P50: 0.5, Measure.P90: 0.9, Measure.P99: 0.99}
HELD_BYTES: Final = 1_000  # bytes of a window's objects beside its values
SENSOR_BYTES: Final = 200  # bytes of an array and of one sensor's moments beside the values
FOLD_ROWS: Final = 64  # events that a window without quantiles holds before it adds them to its moments
_GROWTH: Final = 8  # an array makes room for an eighth more than it needs


class Moments(Struct, frozen=True):
    """One sensor's readings as numbers; `squares` is the sum of squared deviations from the mean."""

    count: int
    sum: float
    least: float
    greatest: float
    mean: float
    squares: float

    def merged(self, other: "Moments") -> "Moments":
        """Return those of both together (Chan, Golub, LeVeque, 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.sum + other.sum,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart * apart * (self.count * other.count / count),
        )


NOTHING: Final = Moments(0, 0.0, math.inf, -math.inf, 0.0, 0.0)


def moments_of(values: Sequence[float]) -> Moments:
    """Return the moments of some readings."""
    if not values:
        return NOTHING
    total = _sum(values)
    mean = total / len(values)
    squares = _sum([(value - mean) * (value - mean) for value in values])
    return Moments(len(values), total, min(values), max(values), mean, squares)


class Aggregate:
    """Values of one window. `ranked`: quantiles will be asked for; without them few values are held."""

    __slots__ = ("_columns", "_last", "_moments", "_ranked", "count")

    def __init__(self, sensors: int, *, ranked: bool = True) -> None:
        self.count = 0
        self._ranked = ranked
        self._last: tuple[int, int, Sequence[float]] | None = None
        self._columns = [array("d") for _ in range(sensors)]
        self._moments = [NOTHING] * sensors

    @property
    def size_bytes(self) -> int:
        """What it takes, by what it may hold."""
        rows = self.count if self._ranked else FOLD_ROWS
        return HELD_BYTES + len(self._columns) * (SENSOR_BYTES + 8 * (rows + rows // _GROWTH))

    @property
    def least_bytes(self) -> int:
        """The same: there is no smaller form."""
        return self.size_bytes

    def take(self, part: Part) -> None:
        """Take in events."""
        for column, values in zip(self._columns, zip(*part.rows, strict=True), strict=True):
            column.extend(values)
        self._counted(part.count, part.last)

    def absorb(self, other: "Aggregate") -> None:
        """Take in what another one knows; the other stays as it is."""
        if other._last is None:
            return
        for column, more in zip(self._columns, other._columns, strict=True):
            column.extend(more)
        self._moments = [mine.merged(more) for mine, more in zip(self._moments, other._moments, strict=True)]
        self._counted(other.count, other._last)

    def copy(self) -> "Aggregate":
        """Return an equal one that changes on its own."""
        twin = Aggregate(len(self._columns), ranked=self._ranked)
        twin.absorb(self)
        return twin

    def merged(self, other: "Aggregate") -> "Aggregate":
        """Return what both know together; both stay as they are."""
        both = self.copy()
        both.absorb(other)
        return both

    def shrink(self) -> bool:
        """Say that there is no smaller form."""
        return False

    def summary(self, measures: Collection[Measure], *, sketch: bool) -> Summary:
        """Return what a row says. Quantiles are exact, linear between the two nearest; there are no sketches."""
        assert self._last is not None
        of_each = [
            folded.merged(moments_of(column)) for folded, column in zip(self._moments, self._columns, strict=True)
        ]
        found = {
            Measure.SUM: [moments.sum for moments in of_each],
            Measure.MIN: [moments.least for moments in of_each],
            Measure.MAX: [moments.greatest for moments in of_each],
            Measure.MEAN: [moments.mean for moments in of_each],
            Measure.VARIANCE: [moments.squares / moments.count for moments in of_each],
            Measure.LAST: list(self._last[2]),
        }
        ranked = [measure for measure in measures if measure in RANKED]
        ordered = [sorted(column) for column in self._columns] if ranked else []
        found |= {measure: [_quantile(values, RANKS[measure]) for values in ordered] for measure in ranked}
        return Summary({measure: found[measure] for measure in measures})

    def _counted(self, count: int, last: tuple[int, int, Sequence[float]]) -> None:
        self.count += count
        if self._last is None or last[:2] > self._last[:2]:
            self._last = last
        if not self._ranked and len(self._columns[0]) >= FOLD_ROWS:
            self._moments = [
                folded.merged(moments_of(column)) for folded, column in zip(self._moments, self._columns, strict=True)
            ]
            self._columns = [array("d") for _ in self._columns]


def of_plan(plan: Windows) -> Aggregate:
    """Return an empty aggregate for one of a plan's windows."""
    return Aggregate(len(plan.sensors), ranked=not RANKED.isdisjoint(plan.measures))


def _sum(values: Sequence[float]) -> float:
    """Return the exact sum, rounded once; infinite when no double can hold it."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def _quantile(ordered: Sequence[float], rank: float) -> float:
    place = rank * (len(ordered) - 1)
    low = int(place)
    below, above = ordered[low], ordered[min(low + 1, len(ordered) - 1)]
    return below + (above - below) * (place - low)
