"""The process itself: its clock and its memory."""

import time
from pathlib import Path


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
