"""What is known of the events of one window, with numpy: a value that can be merged with another of its kind.

A small window holds its values and is exact. A large one holds, per sensor, sum, least, greatest, mean and the sum of
squared deviations, and a quantile sketch. These merge without loss of precision also where readings are large and vary
little (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
"""

from collections.abc import Collection
from typing import Final

import numpy as np

from contracts.bundle import RANKED, Measure, Windows
from edge_agent.core.held import Summary
from edge_agent.core.parts import Part, Values, moments_of
from edge_agent.core.sketch import SIZES, SKETCH_BYTES, Sketches

EXACT_ROWS_MAX: Final = 1_024  # events; twenty windows that go over to sketches in one flush hold it up by some 4 ms
HELD_BYTES: Final = 1_200  # bytes of a window's objects and arrays beside its values
SLACK_ROWS: Final = 16  # events; room that a window of a few events starts with
GROWTH: Final = 4  # room for a quarter more, so that a growing window is copied five times in all and little is unused
RANKS: Final = {Measure.P50: 0.5, Measure.P90: 0.9, Measure.P99: 0.99}

_SUM, _MIN, _MAX, _MEAN, _SQUARES = range(5)
_WHOLE: Final = np.zeros(1, dtype=np.intp)


class Aggregate:
    """Values of one window. `ranked`: quantiles will be asked for; without them no window holds its values."""

    __slots__ = ("_last", "_moments", "_ranked", "_rows", "_sensors", "_sketches", "count")

    def __init__(self, sensors: int, *, ranked: bool = True) -> None:
        self.count = 0
        self._sensors = sensors
        self._ranked = ranked
        self._last: tuple[int, int, Values] | None = None
        self._rows: Values | None = np.empty((SLACK_ROWS, sensors)) if ranked else None
        self._moments: Values | None = None
        self._sketches: Sketches | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes now."""
        if self._rows is not None:
            return self._exact_bytes()
        return self._condensed_bytes(self._sketches.k if self._sketches is not None else None)

    @property
    def least_bytes(self) -> int:
        """What it takes after `shrink` as often as it helps."""
        if not self._ranked:
            return self._condensed_bytes(None)
        return min(self._exact_bytes(), self._condensed_bytes(SIZES[-1]))

    def take(self, part: Part) -> None:
        """Take in events."""
        if self._rows is not None and self.count + part.count <= EXACT_ROWS_MAX:
            self._append(part.rows)
        else:
            self._condense(SIZES[0])
            self._take_moments(part.moments, part.count)
            if self._sketches is not None:
                self._sketches.take(part.columns)
        self.count += part.count
        time_us, seq, values = part.last
        self._take_last((time_us, seq, values.copy()))

    def absorb(self, other: "Aggregate") -> None:
        """Take in what another one knows; the other stays as it is."""
        if other._last is None:
            return
        if other._rows is not None:
            rows = other._rows[: other.count]
            if self._rows is not None and self.count + other.count <= EXACT_ROWS_MAX:
                self._append(rows)
            else:
                self._condense(SIZES[0])
                self._take_moments(moments_of(rows, _WHOLE)[0], other.count)
                assert self._sketches is not None
                self._sketches.take(np.ascontiguousarray(rows.T))
        else:
            self._condense(SIZES[0])
            assert other._moments is not None
            self._take_moments(other._moments, other.count)
            if self._sketches is not None and other._sketches is not None:
                self._sketches.absorb(other._sketches)
        self.count += other.count
        self._take_last(other._last)

    def copy(self) -> "Aggregate":
        """Return an equal one that changes on its own."""
        twin = Aggregate(self._sensors, ranked=self._ranked)
        twin.count = self.count
        twin._last = self._last
        twin._rows = self._rows.copy() if self._rows is not None else None
        twin._moments = self._moments.copy() if self._moments is not None else None
        twin._sketches = self._sketches.shrunk(self._sketches.k) if self._sketches is not None else None
        return twin

    def merged(self, other: "Aggregate") -> "Aggregate":
        """Return what both know together; both stay as they are."""
        both = self.copy()
        both.absorb(other)
        return both

    def shrink(self) -> bool:
        """Go over to the next smaller form; say whether there was one."""
        for k in SIZES:
            if self._ranked and self._condensed_bytes(k) < self.size_bytes:
                if self._sketches is not None:
                    self._sketches = self._sketches.shrunk(k)
                self._condense(k)
                return True
        return False

    def summary(self, measures: Collection[Measure], *, sketch: bool) -> Summary:
        """Return what a row says. Quantiles are exact, linear between the two nearest, or those of the sketch."""
        ranked = [measure for measure in measures if measure in RANKED]
        sketches, found = self._sketches, {}
        if self._rows is not None:
            rows = self._rows[: self.count]
            moments = moments_of(rows, _WHOLE)[0]
            columns = np.ascontiguousarray(rows.T)
            if sketch:
                sketches = Sketches(SIZES[0], self._sensors)
                sketches.take(columns)
            columns.sort(axis=1)
            found = {measure: _quantile(columns, RANKS[measure]) for measure in ranked}
        else:
            assert self._moments is not None
            moments = self._moments
            if sketches is not None:
                ranks = tuple(RANKS[measure] for measure in ranked)
                found = dict(zip(ranked, sketches.quantiles(ranks), strict=True))
        assert self._last is not None
        found |= {
            Measure.SUM: moments[_SUM].tolist(),
            Measure.MIN: moments[_MIN].tolist(),
            Measure.MAX: moments[_MAX].tolist(),
            Measure.MEAN: moments[_MEAN].tolist(),
            Measure.VARIANCE: (moments[_SQUARES] / self.count).tolist(),
            Measure.LAST: self._last[2].tolist(),
        }
        texts = sketches.texts() if sketch and sketches is not None else ()
        return Summary({measure: found[measure] for measure in measures}, texts)

    def _exact_bytes(self) -> int:
        rows = self.count + self.count // GROWTH + SLACK_ROWS
        return HELD_BYTES + rows * self._sensors * 8

    def _condensed_bytes(self, k: int | None) -> int:
        return HELD_BYTES + self._sensors * (5 * 8 + (SKETCH_BYTES[k] if k is not None else 0))

    def _append(self, rows: Values) -> None:
        assert self._rows is not None
        total = self.count + len(rows)
        if total > len(self._rows):
            # Nothing else refers to the buffer, so it may move.
            self._rows.resize((total + total // GROWTH + SLACK_ROWS, self._sensors), refcheck=False)
        self._rows[self.count : total] = rows

    def _condense(self, k: int) -> None:
        """Go over from values to moments and sketches of size `k`."""
        if self._rows is None:
            return
        rows, self._rows = self._rows[: self.count], None
        self._sketches = Sketches(k, self._sensors)
        if len(rows):
            self._moments = moments_of(rows, _WHOLE)[0]
            self._sketches.take(np.ascontiguousarray(rows.T))

    def _take_moments(self, more: Values, count: int) -> None:
        """Add moments of `count` other events."""
        mine = self._moments
        if mine is None:
            self._moments = more.copy()
            return
        total = self.count + count
        np.minimum(mine[_MIN], more[_MIN], out=mine[_MIN])
        np.maximum(mine[_MAX], more[_MAX], out=mine[_MAX])
        with np.errstate(over="ignore", invalid="ignore"):
            apart = more[_MEAN] - mine[_MEAN]
            mine[_SUM] += more[_SUM]
            mine[_MEAN] += apart * (count / total)
            mine[_SQUARES] += more[_SQUARES] + apart * apart * (self.count * count / total)

    def _take_last(self, last: tuple[int, int, Values]) -> None:
        if self._last is None or last[:2] > self._last[:2]:
            self._last = last


def of_plan(plan: Windows) -> Aggregate:
    """Return an empty aggregate for one of a plan's windows."""
    return Aggregate(len(plan.sensors), ranked=plan.sketch or not RANKED.isdisjoint(plan.measures))


def _quantile(ordered: Values, rank: float) -> list[float]:
    """Return a quantile of each row of sorted values, linear between the two nearest.

    Not numpy's own: its first call takes 10 MB of the device's memory and it is slow on windows of a few rows.
    """
    place = rank * (ordered.shape[1] - 1)
    low = int(place)
    high = min(low + 1, ordered.shape[1] - 1)
    below, above = ordered[:, low], ordered[:, high]
    with np.errstate(over="ignore", invalid="ignore"):
        between: list[float] = (below + (above - below) * (place - low)).tolist()
    return between
