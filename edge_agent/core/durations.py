"""How long something took, over and over: a histogram of constant size.

A duration of d us is counted under floor(8 log2 d), so a quantile is at most 9 % too small.
"""

from math import exp2, log2
from typing import Final

PARTS: Final = 8  # of each doubling; 2 ** (1 / 8) is 1.09
BUCKETS_MAX: Final = 31 * PARTS  # up to 2 ** 31 us, 36 minutes; what took longer counts as that


class Durations:
    """Counts of durations, in at most BUCKETS_MAX numbers."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts.values())

    def add(self, duration_s: float) -> None:
        """Count one."""
        bucket = min(BUCKETS_MAX, int(PARTS * log2(max(1.0, duration_s * 1e6))))
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def quantile_us(self, share: float) -> int | None:
        """Return the duration that this share of them did not exceed, None when there were none."""
        wanted, seen = share * self.count, 0
        for bucket, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return round(exp2(bucket / PARTS))
        return None

    def clear(self) -> None:
        """Begin anew."""
        self._counts.clear()
