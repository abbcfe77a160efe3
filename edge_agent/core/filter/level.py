"""Whether the sensors of a machine, taken together, left the levels that they had while the machine was known good.

Each sensor is taken for a level that wanders at random under noise (the local level model: Muth 1960; Harvey,
"Forecasting, Structural Time Series Models and the Kalman Filter", 1989, 2.3). What it may wander is learned from the
first `learn_rows` readings by the method of moments: of readings h apart, the mean squared difference is

    D(h) = noise + h * wander

and D at two distances gives both. A reading's distance from the learned level is then measured against the spread that
the model grants at its age, so a motor that always warms up may go on doing so while a flow that stood still may not
move. The score is the root of the sum of squares over the sensors, of a mean over the last `window_rows`.

What was learned holds for a few times as long as it took to learn: nobody can tell from minutes how a machine wanders
in hours. A rig of pumps that was learned for seven minutes after its start gave nothing but false alarms an hour later;
learned for half an hour it gave 6 % over the next one and a half (`benchmarks/results/edge-detection.json`).

When a score falls below a share of the largest of late, the machine has gone back most of the way: the score is 0, for
otherwise the little that every disturbance leaves behind would be told for ever.
"""

from typing import Final, Self

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from edge_agent.core.filter import extremes
from edge_agent.core.filter.extremes import Memory, Peaks, Values

# Spreads; of a sensor that never moved while it was learned, any move is so many.
SPREADS_MAX: Final = 1_000.0
# Spreads at which the machine is called anomalous; chosen on 17 records of the Skoltech rig.
LEVEL_ALARM: Final = 3.5
# Rounding to a step of q adds noise of q²/12 (Widrow); a sensor that shows few steps would seem to have none.
ROUNDING_VARIANCE: Final = 1.0 / 12.0


class LevelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults for sensors read once a second, as chosen on 17 records of the Skoltech rig, each of 20 minutes.

    `learn_rows` is what that set prescribes; a machine that is to be watched for hours needs 1,600 and more.
    """

    learn_rows: int = 400
    window_rows: int = 20
    release_share: float = 0.1
    peak: Memory = Memory(block_rows=64, blocks=8)

    def __post_init__(self) -> None:
        if not 1 <= self.window_rows <= self.learn_rows // 4:
            raise ValueError(
                f"window_rows {self.window_rows}, learn_rows {self.learn_rows}: "
                "expected 1 <= window_rows <= learn_rows / 4, or no two distances can be told apart"
            )


class Reference(Struct, frozen=True):
    """What was learned, one number per sensor: level, squared spread at `near_rows`, its growth per row."""

    level: Values
    spread: Values
    wander: Values


class LevelShift(Struct, frozen=True, tag="level-shift"):
    """The detector as a value: `advance` returns the next one and leaves this one as it was.

    While it learns it holds `learn_rows` rows, 26 kB for eight sensors; then `window_rows - 1`.
    """

    settings: LevelSettings
    held: Values  # rows not yet let go, shape (rows, sensors)
    newest: Values  # last reading of each sensor, shape (sensors,); NaN where none has come
    peak: Peaks
    rows: int = 0
    reference: Reference | None = None

    @classmethod
    def start(cls, sensors: int, settings: LevelSettings | None = None) -> Self:
        """Return a detector that has seen nothing. Raises ValueError without a sensor."""
        if sensors < 1:
            raise ValueError(f"{sensors} sensors: expected at least 1")
        settings = settings if settings is not None else LevelSettings()
        return cls(settings, np.empty((0, sensors)), np.full(sensors, np.nan), extremes.start(settings.peak))

    def is_sound(self) -> bool:
        """Say whether the parts fit each other: what was read back from a disk may not."""
        if self.held.ndim != 2 or self.held.shape[1] < 1 or self.newest.shape != self.held.shape[1:]:
            return False
        if not extremes.fits(self.settings.peak, self.peak) or not extremes.readable(self.held).all():
            return False
        if self.reference is None:
            return len(self.held) == self.rows < self.settings.learn_rows
        learned = (self.reference.level, self.reference.spread, self.reference.wander)
        shapes = {part.shape for part in learned} == {(self.held.shape[1],)}
        return shapes and len(self.held) == self.settings.window_rows - 1 and self.rows >= self.settings.learn_rows

    def advance(self, readings: NDArray[np.floating]) -> tuple[Self, Values]:
        """Return the next detector and one score per row: shape (n, sensors) -> (n,), in spreads.

        A score depends on earlier rows only, and not on how they were cut into chunks. It is NaN, no opinion, while
        the detector learns. In place of a value that is no number stands the sensor's last; a row without any number,
        or before every sensor has given one, is passed over with NaN.
        """
        rows, known = self._filled(np.asarray(readings, dtype=np.float64))
        scores = np.full(len(rows), np.nan)
        if len(rows) == 0:
            return self, scores
        taught, rest = replace(self, newest=rows[-1].copy())._learned(rows[known])
        if taught.reference is None or len(rest) == 0:
            return taught, scores
        following, told = taught._scored(rest, taught.reference)
        scores[np.flatnonzero(known)[-len(rest) :]] = told
        return following, scores

    def _filled(self, readings: Values) -> tuple[Values, NDArray[np.bool_]]:
        """Return rows with the last value of a sensor in place of a missing one, and which rows can be used."""
        present = extremes.readable(readings)
        if present.all():
            return readings, np.ones(len(readings), dtype=np.bool_)
        joined = np.concatenate((self.newest[np.newaxis, :], readings))
        places = np.zeros(joined.shape, dtype=np.int64)
        places[1:] = np.where(present, np.arange(1, len(joined))[:, np.newaxis], 0)
        rows = np.take_along_axis(joined, np.maximum.accumulate(places, axis=0)[1:], axis=0)
        known: NDArray[np.bool_] = np.logical_and(np.isfinite(rows).all(axis=1), present.any(axis=1))
        return rows, known

    def _learned(self, rows: Values) -> tuple[Self, Values]:
        """Return the detector after what it still wanted to learn from, and the rows that were left over."""
        if self.reference is not None:
            return self, rows
        wanted = self.settings.learn_rows - self.rows
        held = np.concatenate((self.held, rows[:wanted]))
        if len(held) < self.settings.learn_rows:
            return replace(self, held=held, rows=len(held)), rows[:0]
        tail = held[len(held) - self.settings.window_rows + 1 :].copy()
        return replace(self, held=tail, rows=len(held), reference=_reference(self.settings, held)), rows[wanted:]

    def _scored(self, rows: Values, reference: Reference) -> tuple[Self, Values]:
        settings = self.settings
        joined = np.concatenate((self.held, rows))
        means = _means(joined, settings.window_rows)
        # The learned level is that of the middle of what was learned from.
        distance = self.rows + np.arange(len(rows)) - settings.learn_rows // 2 - _near_rows(settings)
        spread = reference.spread + reference.wander * distance[:, np.newaxis]
        away = (means - reference.level) ** 2
        with np.errstate(over="ignore"):
            squares = np.divide(away, spread, out=np.where(away > 0.0, SPREADS_MAX**2, 0.0), where=spread > 0.0)
        squares = np.minimum(squares, SPREADS_MAX**2)
        total = squares[:, 0].copy()
        for sensor in range(1, squares.shape[1]):  # a sum whose order does not depend on how many rows there are
            total += squares[:, sensor]
        raw = np.sqrt(total)
        peak, most = extremes.before(settings.peak, self.peak, raw)
        scores = np.where(raw >= settings.release_share * most, raw, 0.0)
        held = joined[len(joined) - settings.window_rows + 1 :].copy()
        return replace(self, held=held, peak=peak, rows=self.rows + len(rows)), scores


def _near_rows(settings: LevelSettings) -> int:
    return settings.learn_rows // 5


def _reference(settings: LevelSettings, rows: Values) -> Reference:
    means = _means(rows, settings.window_rows)
    near, far = _near_rows(settings), 2 * _near_rows(settings)
    near_square = np.mean((means[near:] - means[:-near]) ** 2, axis=0)
    far_square = np.mean((means[far:] - means[:-far]) ** 2, axis=0)
    ordered = np.sort(means, axis=0)
    floor = ROUNDING_VARIANCE * _rounding(rows) ** 2
    return Reference(
        level=(ordered[(len(means) - 1) // 2] + ordered[len(means) // 2]) / 2.0,
        spread=np.maximum(np.maximum(near_square, means.var(axis=0)), floor),
        wander=np.maximum(far_square - near_square, 0.0) / (far - near),
    )


def _rounding(rows: Values) -> Values:
    """Return each sensor's usual smallest move: the median of its moves that are not zero, 0 if it never moved."""
    moves = np.sort(np.abs(np.diff(rows, axis=0)), axis=0)
    still = (moves == 0.0).sum(axis=0)
    middle = np.minimum(still + (len(moves) - still) // 2, len(moves) - 1)
    usual: Values = np.take_along_axis(moves, middle[np.newaxis, :], axis=0)[0]
    return usual


def _means(rows: Values, window_rows: int) -> Values:
    """Return the mean of every `window_rows` rows that follow each other, shape (n - window_rows + 1, sensors).

    Summed in one order for every row, so that a mean does not depend on the chunk in which it is taken.
    """
    count = len(rows) - window_rows + 1
    total = rows[:count].copy()
    for offset in range(1, window_rows):
        total += rows[offset : offset + count]
    return total / window_rows
