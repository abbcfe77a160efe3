"""How far the lake's watermarks are behind, in time: marks of how many events there were, and when."""

from collections import deque
from typing import Final

MARKS_MAX: Final = 64  # marks; with half of them left out when there are more, a lag is known to about 1/32


class Lag:
    """Times are monotonic seconds, numbers count events of one stream since its epoch began."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque()  # (events, when there were so many), both growing

    def mark(self, events: int, now_s: float) -> None:
        """Note how many events there are now."""
        newest = self._marks[-1][0] if self._marks else None
        if newest is not None and events <= newest:
            return
        self._marks.append((events, now_s))
        if len(self._marks) > MARKS_MAX:
            # The oldest stays: it says since when.
            self._marks = deque(mark for place, mark in enumerate(self._marks) if place % 2 == 0)

    def age_s(self, committed: int, now_s: float) -> float:
        """Return how long the oldest event that is not committed has waited, 0 when there is none.

        Events that came between two marks count as old as the later one.
        """
        while self._marks and self._marks[0][0] <= committed:
            self._marks.popleft()
        return now_s - self._marks[0][1] if self._marks else 0.0
