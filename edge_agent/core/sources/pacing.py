"""When events of a replayed file are due, and how long to wait before connecting again."""

from collections.abc import Callable
from typing import Final

CHUNK_EVENTS_MAX: Final = 4_000  # events; one flush, and about 1 MB of lines
LITE_CHUNK_EVENTS_MAX: Final = 500  # events; without numpy one takes some kB while it is looked at
CONNECT_S: Final = 0.5  # s; first pause before connecting again
CONNECT_S_MAX: Final = 20.0  # s; a broker that comes back is found within half a minute, after an attempt that hung too


def due_events(rate_events_per_s: float, elapsed_s: float, taken: int, events_max: int = CHUNK_EVENTS_MAX) -> int:
    """Return how many events to take now so that event k goes at k / rate; rate 0 is as many as one flush may have."""
    if rate_events_per_s == 0:
        return events_max
    return max(0, min(events_max, int(elapsed_s * rate_events_per_s) - taken))


def connect_pause_s(failures: int, random: Callable[[], float]) -> float:
    """Return the pause after so many failures in a row: doubling, half of it random so that a fleet spreads out.

    `random` returns a number from [0, 1).
    """
    most = min(CONNECT_S_MAX, CONNECT_S * 2.0 ** min(failures, 16))
    return most * (0.5 + 0.5 * random())
