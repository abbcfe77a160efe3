"""Offsets that wait for their candidate messages.

A round is what one poll brought: the offsets after it, and how many of its messages the log has not acknowledged yet.
Rounds finish in the order in which they began, whatever the order of acknowledgements: an offset may be stored only
when everything before it is safe.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

ROUNDS_WAITING_MAX: Final = 64  # rounds; at 40 batches each more than a second of full load, then polling pauses


class Round(Struct):
    """Offsets to go on from by partition, and the messages that are still under way."""

    offsets: Mapping[int, int]
    waiting: int = 0


class Rounds:
    """The rounds under way, oldest first."""

    def __init__(self) -> None:
        self._rounds: deque[Round] = deque()

    def begin(self, offsets: Mapping[int, int]) -> Round:
        """Add a round. `waiting` is counted up by the caller before each send, and down by each acknowledgement."""
        started = Round(offsets)
        self._rounds.append(started)
        return started

    def finished(self) -> dict[int, int]:
        """Remove the finished rounds at the front and return the offsets that are safe now, by partition."""
        safe: dict[int, int] = {}
        while self._rounds and self._rounds[0].waiting == 0:
            safe.update(self._rounds.popleft().offsets)
        return safe

    @property
    def full(self) -> bool:
        """True when no further round may begin."""
        return len(self._rounds) >= ROUNDS_WAITING_MAX

    def forget(self) -> None:
        """Drop every round, as after a rebalance: their batches are read again by whoever owns them now."""
        self._rounds.clear()

    def __len__(self) -> int:
        return len(self._rounds)
