"""When each batch of a schedule became visible to a reader. Pure."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

LOOK_BACK_S: Final = 30.0  # s; a batch that is older is not looked for any more, and counts as never seen


class Sightings:
    """Batches 0 to `total`, number n due at `begin_s + n / rate`, by whom `device_of` and number they are found."""

    def __init__(self, total: int, begin_s: float, rate: float) -> None:
        self._due_s = begin_s + np.arange(total, dtype=np.float64) / rate
        self._seen_s = np.full(total, np.nan)
        self._first = 0

    @property
    def is_over(self) -> bool:
        """Whether every batch has been seen or given up."""
        return self._first >= len(self._due_s)

    def look_from_ms(self, now_s: float) -> int:
        """Return from which sealing time on a look must go to find all that are missing (Unix ms)."""
        seen, total = self._seen_s, len(self._due_s)
        while self._first < total and (
            not np.isnan(seen[self._first]) or self._due_s[self._first] < now_s - LOOK_BACK_S
        ):
            self._first += 1
        return round(float(self._due_s[min(self._first, total - 1)]) * 1_000)

    def take(self, numbers: Iterable[int], now_s: float) -> None:
        """Note batches that a look has shown; of several looks the first counts."""
        for number in numbers:
            if np.isnan(self._seen_s[number]):
                self._seen_s[number] = now_s

    def latencies_ms(self, after_s: float) -> npt.NDArray[np.float64]:
        """Return the latencies of the batches that were due from a time on, NaN for one that was never seen."""
        found: npt.NDArray[np.float64] = (self._seen_s - self._due_s)[self._due_s >= after_s] * 1_000
        return found

    def points(self, after_s: float, count: int) -> list[tuple[float, float]]:
        """Return (s since `after_s`, ms) of about so many batches, evenly chosen."""
        chosen = np.flatnonzero((self._due_s >= after_s) & np.isfinite(self._seen_s))
        chosen = chosen[:: max(1, len(chosen) // count)]
        latency_ms = (self._seen_s - self._due_s)[chosen] * 1_000
        return [(round(at, 2), round(ms, 1)) for at, ms in zip(self._due_s[chosen] - after_s, latency_ms, strict=True)]
