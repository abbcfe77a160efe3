"""What is known of the events of one window, without numpy. The twin of `edge_agent.core.windows.aggregates`.

Numbers are added in the order in which numpy adds them, so that both profiles write the same bits; where a window has
more than 1,024 events the other one has gone over to sketches, and agrees only within rounding.

A window that has to say quantiles holds its values and is exact. There is no sketch: its library takes 4 MB, and
numpy's 16 where that is installed. What exceeds the budget is written early instead; later events make further rows.
"""

import math
from array import array
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from operator import add
from typing import Final, TypeAlias

from msgspec import Struct

from contracts.bundle import RANKED, Measure, Windows
from edge_agent.core.windows.held import Summary
from edge_agent.lite.parts import Part

RANKS: Final = {Measure.P50: 0.5, Measure.P90: 0.9, Measure.P99: 0.99}
HELD_BYTES: Final = 1_000  # bytes of a window's objects beside its values
SENSOR_BYTES: Final = 200  # bytes of an array and of one sensor's moments beside the values
_GROWTH: Final = 8  # an array makes room for an eighth more than it needs
_BLOCK: Final = 128  # values that numpy adds in eight partial sums; more are halved
_LANES: Final = 8

Sum: TypeAlias = Callable[[Sequence[float]], float]


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
            self.squares + (other.squares + apart * apart * (self.count * other.count / count)),
        )


NOTHING: Final = Moments(0, 0.0, math.inf, -math.inf, 0.0, 0.0)


def moments_of(values: Sequence[float], added: Sum) -> Moments:
    """Return the moments of some readings, of which there is one at least; `added` is how they are added."""
    total = added(values)
    mean = total / len(values)
    squares = added([(value - mean) * (value - mean) for value in values])
    return Moments(len(values), total, min(values), max(values), mean, squares)


class Aggregate:
    """Values of one window. `ranked`: quantiles will be asked for; without them no window holds its values."""

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
        rows = self.count if self._ranked else 0
        return HELD_BYTES + len(self._columns) * (SENSOR_BYTES + 8 * (rows + rows // _GROWTH))

    @property
    def least_bytes(self) -> int:
        """The same: there is no smaller form."""
        return self.size_bytes

    def take(self, part: Part) -> None:
        """Take in events."""
        columns = list(zip(*part.rows, strict=True))
        if self._ranked:
            for column, values in zip(self._columns, columns, strict=True):
                column.extend(values)
        else:
            self._fold([moments_of(values, sum_of_part) for values in columns])
        self._counted(part.count, part.last)

    def absorb(self, other: "Aggregate") -> None:
        """Take in what another one knows; the other stays as it is."""
        if other._last is None:
            return
        for column, more in zip(self._columns, other._columns, strict=True):
            column.extend(more)
        self._fold(other._moments)
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
        of_each = [moments_of(column, pairwise) for column in self._columns] if self._ranked else self._moments
        found = {
            Measure.SUM: [moments.sum for moments in of_each],
            Measure.MIN: [moments.least for moments in of_each],
            Measure.MAX: [moments.greatest for moments in of_each],
            Measure.MEAN: [moments.mean for moments in of_each],
            Measure.VARIANCE: [moments.squares / moments.count for moments in of_each],
            Measure.LAST: list(self._last[2]),
        }
        found |= self._quantiles([measure for measure in measures if measure in RANKED])
        return Summary({measure: found[measure] for measure in measures})

    def _quantiles(self, ranked: Sequence[Measure]) -> dict[Measure, list[float]]:
        found: dict[Measure, list[float]] = {measure: [] for measure in ranked}
        if ranked:
            # One sensor after the other: sorted, its values are objects of 32 bytes each for as long as they are held.
            for column in self._columns:
                values = sorted(column)
                for measure in ranked:
                    found[measure].append(_quantile(values, RANKS[measure]))
        return found

    def _counted(self, count: int, last: tuple[int, int, Sequence[float]]) -> None:
        self.count += count
        if self._last is None or last[:2] > self._last[:2]:
            self._last = last

    def _fold(self, more: Sequence[Moments]) -> None:
        self._moments = [mine.merged(its) for mine, its in zip(self._moments, more, strict=True)]


def of_plan(plan: Windows) -> Aggregate:
    """Return an empty aggregate for one of a plan's windows."""
    return Aggregate(len(plan.sensors), ranked=not RANKED.isdisjoint(plan.measures))


def pairwise(values: Sequence[float]) -> float:
    """Return a sum as numpy's `add.reduce` makes it: eight partial sums side by side, larger parts halved first."""
    count = len(values)
    if count < _LANES:
        return reduce(add, values, 0.0)
    if count > _BLOCK:
        half = count // 2 // _LANES * _LANES
        return pairwise(values[:half]) + pairwise(values[half:])
    whole = count // _LANES * _LANES
    a, b, c, d, e, f, g, h = (reduce(add, values[place:whole:_LANES]) for place in range(_LANES))
    return reduce(add, values[whole:], ((a + b) + (c + d)) + ((e + f) + (g + h)))


def sum_of_part(values: Sequence[float]) -> float:
    """Return a sum as numpy's `add.reduceat` makes it, which begins with the first value."""
    return values[0] + pairwise(values[1:]) if len(values) > 1 else values[0]


def _quantile(ordered: Sequence[float], rank: float) -> float:
    place = rank * (len(ordered) - 1)
    low = int(place)
    below, above = ordered[low], ordered[min(low + 1, len(ordered) - 1)]
    return below + (above - below) * (place - low)
