"""What a device gives up, and in which order, when its disk runs short.

| step     | from | what is given up                                                                    |
| -------- | ---- | ----------------------------------------------------------------------------------- |
| NONE     |      |                                                                                     |
| RING     | 70 % | the raw ring: what the lake holds goes at once                                      |
| COARSE   | 80 % | windows that open now are longer, so there are fewer of them                        |
| SLOW     | 90 % | time: sources are read, and producers answered, more slowly                         |
| DROP     | 97 % | events of streams that say `when_full: drop`; the ledger has them as dropped        |

Full is what the spool may hold for the lake, or what the disk can hold at all. Above DROP everything else waits.
"""

from enum import IntEnum
from typing import Final

RESERVE_BYTES: Final = 8_388_608  # bytes; two segments, kept free for what must still be written on a full disk
SCARCE_BYTES: Final = 67_108_864  # bytes free on the disk, beyond the reserve, at which it begins to count
STEP_BACK: Final = 0.05  # of full; so that a device at a border does not go to and fro
SLOW_FLUSH_S: Final = 2.0  # s between two readings of a source at SLOW; ten times less often than usual
COARSE_FACTOR: Final = 6  # windows of ten seconds become windows of a minute


class Step(IntEnum):
    """A step of the ladder; each includes those before it."""

    NONE = 0
    RING = 1
    COARSE = 2
    SLOW = 3
    DROP = 4


_FROM: Final = {Step.RING: 0.70, Step.COARSE: 0.80, Step.SLOW: 0.90, Step.DROP: 0.97}


def fullness(owed_bytes: int, quota_bytes: int, free_bytes: int | None) -> float:
    """Return how full a device is, 1.0 being full, by its quota and by its disk; None is a disk that does not say."""
    by_quota = owed_bytes / quota_bytes
    if free_bytes is None:
        return by_quota
    left = max(0, free_bytes - RESERVE_BYTES)
    return max(by_quota, 1.0 - left / SCARCE_BYTES * (1.0 - _FROM[Step.RING]))


def step_after(step: Step, full: float) -> Step:
    """Return the step to be on: up as soon as a border is reached, down only well below it."""
    up = max((one for one, border in _FROM.items() if full >= border), default=Step.NONE)
    if up >= step:
        return up
    return max((one for one, border in _FROM.items() if full >= border - STEP_BACK and one <= step), default=Step.NONE)
