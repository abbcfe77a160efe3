"""The Numenta Anomaly Benchmark: its series, and its score of a detector.

The rules are those of Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms" (2015), in the exact form
that the published scores follow; a test holds them against 93 of these.

- The first 15 % of a series, of its first 5,000 rows at most, are its probation: what is told there does not count.
- A row is alarmed when its score reaches the threshold. With S(y) = 2 / (1 + e^5y) - 1, the i-th of a window's n rows
  (from 0) is worth S(-(n - i) / n) / S(-1); a row d rows after a window of n rows is worth S(d / (n - 1)), and -1 from
  3 windows' lengths on, as well as before the first window.
- A window counts its most worthy alarm, times the weight of a hit, or minus the weight of a miss if it has none. Every
  alarm outside counts what it is worth, times the weight of a false alarm.
- One threshold for the whole corpus, the one at which it scores best. The result is scaled so that the detector that
  never alarms has 0 and the perfect one 100.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.detection.source import malformed

PROBATION_SHARE: Final = 0.15
PROBATION_BASE_ROWS_MAX: Final = 5_000
STEEPNESS: Final = 5.0
FAR_WINDOWS: Final = 3.0  # lengths of a window after it; from there on a false alarm costs all it can
OUTSIDE: Final = -1

Scores = NDArray[np.float64]
Alarms = NDArray[np.bool_]


class Costs(Struct, frozen=True):
    """What a profile makes of hits, misses and false alarms."""

    hit: float = msgspec.field(name="tpWeight")
    miss: float = msgspec.field(name="fnWeight")
    false_alarm: float = msgspec.field(name="fpWeight")


class _Profile(Struct, frozen=True):
    costs: Costs = msgspec.field(name="CostMatrix")


class Series(Struct, frozen=True):
    """One file: `values` [n], and the windows as (first row, last row), both inside."""

    name: str
    values: NDArray[np.float64]
    windows: tuple[tuple[int, int], ...]

    @property
    def probation_rows(self) -> int:
        """Rows at the beginning that do not count."""
        return int(min(PROBATION_SHARE * len(self.values), PROBATION_SHARE * PROBATION_BASE_ROWS_MAX))


class Rows(Struct, frozen=True):
    """A series' rows after its probation: what an alarm is worth, and in which window it lies, or OUTSIDE."""

    worth: NDArray[np.float64]
    window: NDArray[np.int64]


class Outcome(Struct, frozen=True):
    """What a series adds to the corpus's score, and how many of its rows were what."""

    score: float
    hits: int
    false_alarms: int
    misses: int
    calm: int


def read_corpus(folder: Path) -> tuple[Series, ...]:
    """Read every labelled series. Raises OperatorMustActError for a file that is not as described."""
    path = folder / "labels" / "combined_windows.json"
    try:
        windows = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[str, str]]])
    except msgspec.DecodeError as error:
        raise malformed(path, "windows by file", str(error)) from error
    return tuple(_read_series(folder / "data" / name, name, windows[name]) for name in sorted(windows))


def read_profiles(folder: Path) -> dict[str, Costs]:
    """Read the profiles. Raises OperatorMustActError for a file that is not as described."""
    path = folder / "config" / "profiles.json"
    try:
        profiles = msgspec.json.decode(path.read_bytes(), type=dict[str, _Profile])
    except msgspec.DecodeError as error:
        raise malformed(path, "cost matrices by profile", str(error)) from error
    return {name: profile.costs for name, profile in profiles.items()}


def rows_of(series: Series) -> Rows:
    """Return what alarms in a series are worth."""
    count = len(series.values)
    places = np.arange(count)
    worth, window = np.full(count, -1.0), np.full(count, OUTSIDE, dtype=np.int64)
    for number, (first, last) in enumerate(series.windows):
        length = last - first + 1
        after = slice(last + 1, count)
        late = (places[after] - last) / max(length - 1, 1)
        worth[after] = np.where(late < FAR_WINDOWS, _sigmoid(np.minimum(late, FAR_WINDOWS)), -1.0)
        inside = slice(first, last + 1)
        worth[inside] = _sigmoid(-(last - places[inside] + 1) / length) / _sigmoid(np.array(-1.0))
        window[inside] = number
    begin = series.probation_rows
    return Rows(worth[begin:], window[begin:])


def outcome(rows: Rows, alarms: Alarms, costs: Costs) -> Outcome:
    """Score the alarms of a series' rows after its probation."""
    outside = rows.window == OUTSIDE
    score = costs.false_alarm * float(rows.worth[alarms & outside].sum())
    for number in np.unique(rows.window[~outside]):
        best = rows.worth[alarms & (rows.window == number)].max(initial=-np.inf)
        score += costs.hit * float(best) if np.isfinite(best) else -costs.miss
    return Outcome(
        score=score,
        hits=int(np.count_nonzero(alarms & ~outside)),
        false_alarms=int(np.count_nonzero(alarms & outside)),
        misses=int(np.count_nonzero(~alarms & ~outside)),
        calm=int(np.count_nonzero(~alarms & outside)),
    )


def window_count(corpus: Sequence[Rows]) -> int:
    """Return how many windows can be hit."""
    return sum(len(np.unique(rows.window[rows.window != OUTSIDE])) for rows in corpus)


def scaled(score: float, windows: int, costs: Costs) -> float:
    """Return a corpus's score between 0, never an alarm, and 100, the first row of every window and nothing else."""
    nothing, perfect = -costs.miss * windows, costs.hit * windows
    return 100.0 * (score - nothing) / (perfect - nothing)


def corpus_score(corpus: Mapping[str, Rows], scores: Mapping[str, Scores], threshold: float, costs: Costs) -> float:
    """Return the scaled score at a threshold; `scores` are of the rows after probation, NaN is no alarm."""
    total = sum(outcome(rows, scores[name] >= threshold, costs).score for name, rows in corpus.items())
    return scaled(total, window_count(list(corpus.values())), costs)


def best_threshold(corpus: Mapping[str, Rows], scores: Mapping[str, Scores], costs: Costs) -> float:
    """Return the threshold of the best score, of equal ones the highest: infinity if any alarm makes it worse.

    Lowering the threshold over one row changes the score by a fixed amount: outside by what a false alarm costs; in a
    window by how much the row is worth more than the best with a higher score. So one sorted sum finds the best.
    """
    levels, gains = [np.array([np.inf])], [np.array([0.0])]
    for name, rows in corpus.items():
        known = np.isfinite(scores[name])
        outside = known & (rows.window == OUTSIDE)
        levels.append(scores[name][outside])
        gains.append(costs.false_alarm * rows.worth[outside])
        for number in np.unique(rows.window[rows.window != OUTSIDE]):
            inside = np.flatnonzero(known & (rows.window == number))
            inside = inside[np.argsort(-scores[name][inside], kind="stable")]
            best = np.maximum.accumulate(np.concatenate(([-costs.miss], costs.hit * rows.worth[inside])))
            levels.append(scores[name][inside])
            gains.append(np.diff(best))
    level, gain = np.concatenate(levels), np.concatenate(gains)
    order = np.argsort(-level, kind="stable")
    level, total = level[order], np.cumsum(gain[order])
    whole = np.append(level[1:] != level[:-1], True)  # rows of equal score are alarmed together
    return float(level[whole][np.argmax(total[whole])])


def _read_series(path: Path, name: str, windows: list[tuple[str, str]]) -> Series:
    lines = path.read_text(encoding="ascii").splitlines()
    if lines[0] != "timestamp,value":
        raise malformed(path, "the header 'timestamp,value'", lines[0][:80])
    parts = [line.split(",") for line in lines[1:]]
    try:
        # A time may occur twice, where the clocks were set back: a window begins and ends at its first.
        place = {time: row for row, (time, _) in reversed(list(enumerate(parts)))}
        bounds = tuple((place[first[:19]], place[last[:19]]) for first, last in windows)
        return Series(name, np.array([float(value) for _, value in parts]), bounds)
    except (ValueError, KeyError) as error:
        raise malformed(path, "a time and a number in each row, and every window's bounds", str(error)) from error


def _sigmoid(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 0.987 at the left edge of a window (-1), 0 at its right edge, and -1 far behind."""
    value: NDArray[np.float64] = 2.0 / (1.0 + np.exp(STEEPNESS * position)) - 1.0
    return value
