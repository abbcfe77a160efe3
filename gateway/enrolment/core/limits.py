"""How often somebody may ask: a token bucket per name."""

from collections import OrderedDict
from typing import Final

BURST: Final = 10  # requests at once; a device that lost its answer asks a few times
REFILL_S: Final = 30.0  # s until one more is allowed: in ten years a thief has ten million tries at 160 bits
NAMES_MAX: Final = 10_000  # names remembered; the one that asked longest ago is forgotten first, with a full bucket


class Limiter:
    """Says whether one more request of a name may be looked at."""

    def __init__(self, burst: int = BURST, refill_s: float = REFILL_S, names_max: int = NAMES_MAX) -> None:
        self._burst, self._refill_s, self._names_max = burst, refill_s, names_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> (requests left, as of)

    def admit(self, name: str, now_s: float) -> bool:
        """Count a request; False when the name has none left."""
        left, as_of_s = self._buckets.pop(name, (float(self._burst), now_s))
        left = min(float(self._burst), left + (now_s - as_of_s) / self._refill_s)
        admitted = left >= 1.0
        self._buckets[name] = (left - 1.0 if admitted else left, now_s)
        if len(self._buckets) > self._names_max:
            self._buckets.popitem(last=False)
        return admitted
