"""How far a single series goes beyond all that it remembers of itself.

A reading is new by the distance to which it leaves the range of the remembered readings, as a share of that range:

    beyond(x) = max(x - high, low - x, 0) / (high - low)

Two of these are put together, each over its own memory: of the level, over a long one, and of the step from the
reading before, over a short one and with a small weight, for the series in which something happens at a usual level.
Of the scores that follow each other closely only those count that exceed all before them, so that one disturbance
is told once for each time that it grows. The score does not change when the series is scaled, shifted or mirrored.

The range as a measure of the usual is the oldest of control charts (Shewhart, 1931); Lavin and Ahmad (2015,
"Evaluating Real-time Anomaly Detection Algorithms") use a new extreme as a sign beside their model's.
"""

from typing import Final, Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_agent.core.filter import extremes
from edge_agent.core.filter.extremes import Memory, Peaks, Values

# What can be told of a series that leaves a range of no width, or one that is tiny against the step.
NOVELTY_MAX: Final = 1_000.0
# Shares of the range; the threshold at which those series of the Numenta corpus score best, rounded.
NOVELTY_ALARM: Final = 0.004


class NoveltySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Defaults as chosen on 31 series of the Numenta corpus with 1,100 to 22,700 readings, most of them at 5 minutes.

    Around them the result hardly depends on the numbers: 4,000 or 16,000 readings of level instead of 8,192, 350 to
    580 of steps instead of 512, half or twice the weight.
    """

    warm_rows: int = 64  # readings without a score at the beginning, while the range is still an accident
    level: Memory = Memory(block_rows=64, blocks=128)
    step: Memory = Memory(block_rows=64, blocks=8)
    step_weight: float = 0.025
    quiet: Memory = Memory(block_rows=16, blocks=4)


class _Range(Struct, frozen=True):
    """Highs, and lows with their sign turned."""

    high: Peaks
    low: Peaks


class Novelty(Struct, frozen=True, tag="novelty"):
    """The detector as a value: `advance` returns the next one and leaves this one as it was. Some 3 kB."""

    settings: NoveltySettings
    level: _Range
    step: _Range
    told: Peaks
    rows: int = 0
    newest: float = 0.0  # the last reading; says nothing while rows is 0

    @classmethod
    def start(cls, settings: NoveltySettings | None = None) -> Self:
        """Return a detector that has seen nothing."""
        settings = settings if settings is not None else NoveltySettings()
        told = extremes.start(settings.quiet)
        return cls(settings, _nothing(settings.level), _nothing(settings.step), told)

    def is_sound(self) -> bool:
        """Say whether the parts fit each other: what was read back from a disk may not."""
        s = self.settings
        parts = ((s.level, self.level.high), (s.level, self.level.low), (s.step, self.step.high))
        more = ((s.step, self.step.low), (s.quiet, self.told))
        return self.rows >= 0 and all(extremes.fits(memory, peaks) for memory, peaks in (*parts, *more))

    def advance(self, readings: NDArray[np.floating]) -> tuple[Self, Values]:
        """Return the next detector and one score per reading: shape (n, 1) or (n,) -> (n,), 0 to NOVELTY_MAX.

        A score depends on earlier readings only, and not on how they were cut into chunks. It is NaN, no opinion, for
        a reading that is no number, which is passed over, and for the first `warm_rows`.
        """
        flat = np.asarray(readings, dtype=np.float64).reshape(-1)
        known = extremes.readable(flat)
        scores = np.full(len(flat), np.nan)
        if not known.any():
            return self, scores
        values = flat[known]
        following, scores[known] = self._scored(values)
        return following, scores

    def _scored(self, values: Values) -> tuple[Self, Values]:
        settings = self.settings
        previous = np.concatenate(([self.newest if self.rows else values[0]], values[:-1]))
        level, beyond = _beyond(settings.level, self.level, values)
        step, leap = _beyond(settings.step, self.step, values - previous)
        raw = np.maximum(beyond, settings.step_weight * leap)
        warm = self.rows + np.arange(len(values)) < settings.warm_rows
        raw[warm] = 0.0
        told, most = extremes.before(settings.quiet, self.told, raw)
        scores = np.where(warm, np.nan, np.where(raw > most, raw, 0.0))
        following = type(self)(settings, level, step, told, self.rows + len(values), float(values[-1]))
        return following, scores


def _nothing(memory: Memory) -> _Range:
    return _Range(extremes.start(memory), extremes.start(memory))


def _beyond(memory: Memory, remembered: _Range, values: Values) -> tuple[_Range, Values]:
    high, highs = extremes.before(memory, remembered.high, values)
    low, lows = extremes.before(memory, remembered.low, -values)
    away = np.maximum(np.maximum(values - highs, -values - lows), 0.0)
    width = highs + lows
    # At first nothing is remembered, and both bounds are infinite; the warm-up passes over what comes of it.
    with np.errstate(over="ignore"):
        share = np.divide(away, width, out=np.where(away > 0.0, NOVELTY_MAX, 0.0), where=width > 0.0)
    return _Range(high, low), np.minimum(share, NOVELTY_MAX)
