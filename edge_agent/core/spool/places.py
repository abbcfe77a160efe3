"""Where the events of one stream lie in a record."""

from collections.abc import Iterator
from typing import NamedTuple

from contracts.ledger import Fate
from edge_agent.core.spool.record import BatchRef, Indexed, StoredRef
from edge_agent.core.spool.segment import PendingBatch, block_id


class Block(NamedTuple):
    """A block with events of one stream, and what became of these; `place` is where it lies."""

    place: PendingBatch
    ref: BatchRef | StoredRef
    fate: Fate


class Place(NamedTuple):
    """What a record has of one stream. `times_us` are its first and last event time, None without valid events.

    `dropped` says how many events it dropped for which reason.
    """

    number: int
    times_us: tuple[int, int] | None
    blocks: tuple[Block, ...]
    dropped: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        """Events in its blocks."""
        return sum(block.ref.rows for block in self.blocks)


def place_of(entry: Indexed, segment: int, overhead_bytes: int, contract: str) -> Place | None:
    """Return where a stream's events lie in a record, None when it has none; blocks are so much longer than sealed."""
    meta = entry.meta
    blocks = tuple(_blocks(entry, segment, overhead_bytes, contract))
    if not blocks:
        return None
    counts = [count for count in meta.counts if count.stream == contract]
    dropped = tuple((count.reason, count.count) for count in counts if count.fate == Fate.DROPPED.value)
    return Place(meta.number, meta.times_us.get(contract), blocks, dropped)


def _blocks(entry: Indexed, segment: int, overhead_bytes: int, contract: str) -> Iterator[Block]:
    meta, at = entry.meta, entry.body_offset
    counted = any(count.stream == contract and count.fate == Fate.AGGREGATED.value for count in meta.counts)
    refs: tuple[BatchRef | StoredRef, ...] = (*meta.batches, *meta.stored)
    for place, ref in enumerate(refs):
        if ref.contract == contract:
            number = block_id(meta.number, place)
            found = PendingBatch(number, contract, ref.first_seq, ref.span, segment, at, ref.length, ref.rows)
            yield Block(found, ref, _fate(ref, counted))
        at += ref.length + overhead_bytes


def _fate(ref: BatchRef | StoredRef, counted: bool) -> Fate:
    if isinstance(ref, BatchRef):
        return Fate.KEPT
    # Without windows the same block holds what windows would have counted.
    return Fate.AGGREGATED if ref.windowed and counted else Fate.DROPPED
