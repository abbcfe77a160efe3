"""What is known of the events of one window, with numpy: a value that can be merged with another of its kind.

A small window holds its values and is exact. A large one holds, per sensor, sum, least, greatest, mean and the sum of
squared deviations, and a quantile sketch. These merge without loss of precision also where readings are large and vary
little (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
"""

from collections.abc import Collection
from typing import Final

import numpy as np

from contracts.bundle import RANKED, Measure, Windows
from edge_agent.core.windows.held import Summary
from edge_agent.core.windows.parts import Part, Values, moments_of
from edge_agent.core.windows.sketch import SIZES, SKETCH_BYTES, Sketches

EXACT_ROWS_MAX: Final = 1_024  # events; twenty windows that go over to sketches in one flush hold it up by some 4 ms
# Events that a sketched window collects before it adds them: a few calls for a hundred events instead of for ten. The
# smaller sketches go without, the budget has no room for it.
STAGED_ROWS: Final = {SIZES[0]: 128}
HELD_BYTES: Final = 1_200  # bytes of a window's objects and arrays beside its values
SLACK_ROWS: Final = 16  # events; room that a window of a few events starts with
GROWTH: Final = 4  # room for a quarter more, so that a growing window is copied five times in all and little is unused
RANKS: Final = {Measure.P50: 0.5, Measure.P90: 0.9, Measure.P99: 0.99}

_SUM, _MIN, _MAX, _MEAN, _SQUARES = range(5)


class Aggregate:
    """Values of one window. `ranked`: quantiles will be asked for; without them no window holds its values."""

    __slots__ = ("_folded", "_last", "_moments", "_ranked", "_rows", "_sensors", "_sketches", "_staged")

    def __init__(self, sensors: int, *, ranked: bool = True) -> None:
        self._sensors = sensors
        self._ranked = ranked
        self._last: tuple[int, int, Values] | None = None
        # The first `_staged` rows are values that moments and sketches do not know yet; these know `_folded` events.
        self._rows = np.empty((SLACK_ROWS if ranked else 0, sensors))
        self._staged = 0
        self._folded = 0
        self._moments: Values | None = None
        self._sketches: Sketches | None = None

    @property
    def count(self) -> int:
        """How many events it has."""
        return self._folded + self._staged

    @property
    def size_bytes(self) -> int:
        """What it takes now."""
        if self._is_exact:
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
        if not self._stage(part.rows):
            self._take_moments(part.moments, part.count)
            if self._sketches is not None:
                self._sketches.take(part.columns)
        time_us, seq, values = part.last
        self._take_last((time_us, seq, values.copy()))

    def absorb(self, other: "Aggregate") -> None:
        """Take in what another one knows; the other stays as it is."""
        if other._last is None:
            return
        rows = other._rows[: other._staged]
        if other._moments is not None:
            self._fold(SIZES[0])
            self._take_moments(other._moments, other._folded)
            if self._sketches is not None and other._sketches is not None:
                self._sketches.absorb(other._sketches)
        if not self._stage(rows):
            self._condense(rows)
        self._take_last(other._last)

    def copy(self) -> "Aggregate":
        """Return an equal one that changes on its own."""
        twin = Aggregate(self._sensors, ranked=self._ranked)
        twin._last = self._last
        twin._rows = self._rows.copy()
        twin._staged = self._staged
        twin._folded = self._folded
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
                self._fold(k)
                assert self._sketches is not None
                self._sketches = self._sketches.shrunk(k)
                self._rows = np.empty((STAGED_ROWS.get(k, 0), self._sensors))
                return True
        return False

    def summary(self, measures: Collection[Measure], *, sketch: bool) -> Summary:
        """Return what a row says. Quantiles are exact, linear between the two nearest, or those of the sketch."""
        ranked = [measure for measure in measures if measure in RANKED]
        sketches, found = self._sketches, {}
        if self._is_exact:
            columns = np.ascontiguousarray(self._rows[: self.count].T)
            moments = moments_of(columns)
            if sketch:
                sketches = Sketches(SIZES[0], self._sensors)
                sketches.take(columns)
            columns.sort(axis=1)
            found = {measure: _quantile(columns, RANKS[measure]) for measure in ranked}
        else:
            self._fold(SIZES[0])
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

    @property
    def _is_exact(self) -> bool:
        return self._ranked and self._sketches is None

    def _exact_bytes(self) -> int:
        rows = self.count + self.count // GROWTH + SLACK_ROWS
        return HELD_BYTES + rows * self._sensors * 8

    def _condensed_bytes(self, k: int | None) -> int:
        sketched = SKETCH_BYTES[k] + STAGED_ROWS.get(k, 0) * 8 if k is not None else 0
        return HELD_BYTES + self._sensors * (5 * 8 + sketched)

    def _stage(self, rows: Values) -> bool:
        """Put values where there is room for them; say whether there was."""
        total = self._staged + len(rows)
        if total > (EXACT_ROWS_MAX if self._is_exact else len(self._rows)):
            self._fold(SIZES[0])
            total = len(rows)
            if total > len(self._rows):
                return False
        elif total > len(self._rows):
            # Nothing else refers to the buffer, so it may move.
            self._rows.resize((total + total // GROWTH + SLACK_ROWS, self._sensors), refcheck=False)
        self._rows[self._staged : total] = rows
        self._staged = total
        return True

    def _fold(self, k: int) -> None:
        """Let moments and sketches know all values; an exact window gets sketches of size `k`."""
        rows, self._staged = self._rows[: self._staged], 0
        if self._is_exact:
            self._sketches = Sketches(k, self._sensors)
            self._rows = np.empty((STAGED_ROWS.get(k, 0), self._sensors))
        if len(rows):
            self._condense(rows)

    def _condense(self, rows: Values) -> None:
        """Add values to moments and sketches."""
        columns = np.ascontiguousarray(rows.T)
        self._take_moments(moments_of(columns), len(rows))
        if self._sketches is not None:
            self._sketches.take(columns)

    def _take_moments(self, more: Values, count: int) -> None:
        """Add moments of `count` other events."""
        mine, known = self._moments, self._folded
        self._folded = total = known + count
        if mine is None:
            self._moments = more.copy()
            return
        np.minimum(mine[_MIN], more[_MIN], out=mine[_MIN])
        np.maximum(mine[_MAX], more[_MAX], out=mine[_MAX])
        with np.errstate(over="ignore", invalid="ignore"):
            apart = more[_MEAN] - mine[_MEAN]
            mine[_SUM] += more[_SUM]
            mine[_MEAN] += apart * (count / total)
            mine[_SQUARES] += more[_SQUARES] + apart * apart * (known * count / total)

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
