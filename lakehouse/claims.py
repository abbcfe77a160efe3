"""Which sequence numbers of which batch are new. Pure: range arithmetic, no rows.

Batches claim their ranges in the order of arrival; what a table accounts for already, or what an earlier batch of the
round has claimed, is not claimed again. So redelivery, reordering and overlap all end in the same rows.
"""

from collections.abc import Mapping

from contracts import ranges
from contracts.ranges import Range, RangeSet
from lakehouse.handover import Claim
from lakehouse.streams import StreamKey


class Claims:
    """Ranges claimed in one round on top of what is known; `changed` holds the streams that grew, whole."""

    def __init__(self, known: Mapping[StreamKey, RangeSet]) -> None:
        self._known = known
        self.changed: dict[StreamKey, RangeSet] = {}
        self._claimed: dict[StreamKey, list[Range]] = {}

    def of(self, key: StreamKey) -> RangeSet:
        """Return what is accounted for in a stream, this round's claims included."""
        found = self.changed.get(key)
        return found if found is not None else self._known.get(key, ranges.EMPTY)

    def claim(self, key: StreamKey, first: int, end: int) -> RangeSet:
        """Claim a range and return the parts that are new, which may be none."""
        before = self.of(key)
        gaps = ranges.missing(before, first, end)
        if gaps:
            self.changed[key] = ranges.add(before, first, end)
            self._claimed.setdefault(key, []).extend(gaps)
        return gaps

    def all(self) -> tuple[Claim, ...]:
        """Return everything that was claimed, a claim for each stream."""
        return tuple(Claim(key, ranges.union(found)) for key, found in self._claimed.items())
