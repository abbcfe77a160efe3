"""Which sequence numbers of which batch are new. Pure: range arithmetic, no rows.

Batches claim their ranges in the order of arrival; what a table accounts for already, or what an earlier batch of the
round has claimed, is not claimed again. So redelivery, reordering and overlap all end in the same rows.
"""

from collections.abc import Iterable

from contracts import ranges
from contracts.microbatch import Header
from contracts.ranges import RangeSet
from lakehouse.state import Known, StreamKey


class Claims:
    """Ranges claimed in one round on top of what a table knows; `changed` holds the streams that grew."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self.changed: dict[StreamKey, RangeSet] = {}

    def of(self, key: StreamKey) -> RangeSet:
        """Return what is accounted for in a stream, this round's claims included."""
        return self.changed.get(key, self._known.get(key, ranges.EMPTY))

    def claim(self, key: StreamKey, header: Header) -> RangeSet:
        """Claim a batch's range and return the parts that are new, which may be none."""
        before = self.of(key)
        gaps = ranges.missing(before, header.first_seq, header.end_seq)
        if gaps:
            self.changed[key] = ranges.add(before, header.first_seq, header.end_seq)
        return gaps

    def merged(self) -> dict[StreamKey, RangeSet]:
        """Return everything the table accounts for once the round is committed."""
        return {**self._known, **self.changed}


def uncovered(held: Known, tables: Iterable[Known]) -> dict[StreamKey, RangeSet]:
    """Return the ranges that the quarantine holds for streams whose own table does not account for them yet.

    The quarantine is committed before the table. Once the table has a range, no replay offers it again and the
    quarantine may forget it; without that its state would grow by one range for every batch with a bad row.
    """
    accounted = {key: own for known in tables for key, own in known.items()}
    return {
        key: kept
        for key, own in held.items()
        if (kept := tuple(r for r in own if not ranges.covers(accounted.get(key, ranges.EMPTY), *r)))
    }
