"""Seams that every package shares."""

from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time, so that no core reads a clock of its own."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...
