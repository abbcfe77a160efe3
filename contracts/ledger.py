"""The conservation ledger: what became of every event that an origin observed.

Per stream: observed = kept + aggregated + dropped(rule, reason) + lost(reason). Entries are durable in the spool record
of the batch they explain, so that neither can be there without the other, and travel to the lake some seconds later as
rows of the contract `ledger`: each about one contiguous range of sequence numbers, which may span many batches. A
`lost` entry lies within such a range.
"""

from collections.abc import Iterable
from enum import Enum

from msgspec import Struct


class Fate(Enum):
    """What became of an event; exactly one holds for each."""

    KEPT = "kept"  # travels as a row of its own
    AGGREGATED = "aggregated"  # only counted in a window
    DROPPED = "dropped"  # neither; rule and reason say why
    LOST = "lost"  # observed, then destroyed by a fault; the reason says which


class Entry(Struct, frozen=True):
    """`count` events of [first_seq, first_seq + span) of a stream met this fate. `rule` is `id@version` or empty."""

    stream: str
    stream_epoch: int
    first_seq: int
    span: int
    fate: Fate
    count: int
    rule: str = ""
    reason: str = ""


class Totals(Struct, frozen=True):
    """Sums over a stream, or over many."""

    observed: int = 0
    kept: int = 0
    aggregated: int = 0
    dropped: int = 0
    lost: int = 0

    @property
    def unexplained(self) -> int:
        """Events with no fate (positive) or with more than one (negative); 0 in a sound ledger."""
        return self.observed - self.kept - self.aggregated - self.dropped - self.lost


def total(observed: int, entries: Iterable[Entry]) -> Totals:
    """Add up entries against the number of events the origin observed."""
    sums = dict.fromkeys(Fate, 0)
    for entry in entries:
        sums[entry.fate] += entry.count
    return Totals(observed, sums[Fate.KEPT], sums[Fate.AGGREGATED], sums[Fate.DROPPED], sums[Fate.LOST])
