"""The machine's clocks."""

import time


class WallClock:
    """Implements `contracts.ports.Clock`."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
