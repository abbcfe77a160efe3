"""The process itself: its clock and its memory."""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

TRIM_S: Final = 10.0  # s between two looks for memory to give back


class WallClock:
    """Implements `contracts.ports.Clock`."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


def pss_mb() -> float | None:
    """Return this process's proportional set size in MB (10^6 bytes); None where the system does not tell."""
    try:
        rollup = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


class Trimming:
    """Gives memory back that lies free between what is in use: windows and flushes come and go among what stays.

    Without it 1 MB of the lite profile's 25 is such memory. Where the C library is not glibc nothing happens.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._due_s = now_s() + TRIM_S
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def turn(self) -> None:
        """Do so when it is time; it takes under a millisecond."""
        now_s = self._now_s()
        if self._trim is not None and now_s >= self._due_s:
            self._due_s = now_s + TRIM_S
            self._trim(0)
