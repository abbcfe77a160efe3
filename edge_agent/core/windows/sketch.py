"""Mergeable quantiles of a large window: one KLL sketch of doubles for each sensor, from Apache DataSketches.

Source: Karnin, Lang, Liberty, "Optimal Quantile Approximation in Streams" (2016); the serialised form is the library's,
which its other languages read too. A sketch of size k says a quantile whose rank is off by at most RANK_ERRORS[k], with
99 % confidence; merged sketches have the error of the smallest k among them. Its compaction tosses coins that cannot be
seeded, so two runs over the same events may differ within that error.
"""

import base64
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

# Bytes of the process for each sketch, the allocator's share included, measured with some thousand values. Windows step
# down from the first size to the last as the budget demands: in 4 MB there is room for 70, 142 or 259 windows of nine
# sensors. The last is the largest with which 256 of them fit.
SKETCH_BYTES: Final = {200: 5_400, 100: 3_100, 36: 1_620}
RANK_ERRORS: Final = {200: 0.0133, 100: 0.0261, 36: 0.0704}
SIZES: Final = tuple(SKETCH_BYTES)


@cache
def _library() -> Any:
    """Import the library when the first large window needs it: it takes 2 MB."""
    import datasketches

    return datasketches


class Sketches:
    """A sketch per sensor, all of size `k`."""

    def __init__(self, k: int, sensors: int) -> None:
        self.k = k
        self._sketches: list[Any] = [_library().kll_doubles_sketch(k) for _ in range(sensors)]

    def take(self, columns: Values) -> None:
        """Take in values, shape (sensors, events)."""
        for sketch, column in zip(self._sketches, columns, strict=True):
            sketch.update(column)

    def absorb(self, other: "Sketches") -> None:
        """Merge another's into these."""
        for sketch, more in zip(self._sketches, other._sketches, strict=True):
            sketch.merge(more)

    def shrunk(self, k: int) -> "Sketches":
        """Return the same values in sketches of at most size `k`."""
        smaller = Sketches(min(k, self.k), len(self._sketches))
        smaller.absorb(self)
        return smaller

    def quantiles(self, ranks: tuple[float, ...]) -> list[list[float]]:
        """Return for each rank the values by sensor."""
        of_each = [sketch.get_quantiles(ranks) for sketch in self._sketches]
        return [list(values) for values in zip(*of_each, strict=True)]

    def texts(self) -> tuple[str, ...]:
        """Return the serialised sketches as base64, by sensor."""
        return tuple(base64.b64encode(sketch.serialize()).decode("ascii") for sketch in self._sketches)
