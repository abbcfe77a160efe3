"""Segments of the spool and the batches in them, as they are known while the spool is open."""

from collections.abc import Mapping

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.spool.record import Checkpoint, Indexed, Meta, Settled, Summary


class PendingBatch(Struct, frozen=True):
    """A batch in the spool that the lake is not known to hold; `id` grows in the order of sealing."""

    id: int
    contract: str
    first_seq: int
    span: int
    segment: int
    offset: int
    length: int
    rows: int = 0
    key: int = 0

    @property
    def end_seq(self) -> int:
        """First sequence number after the batch."""
        return self.first_seq + self.span


class Segment:
    """What a segment holds, while its spool is open; its records stay on disk."""

    __slots__ = (
        "batches",
        "first_ms",
        "first_number",
        "last_ms",
        "number",
        "ranges",
        "records",
        "settled",
        "size_bytes",
        "times_us",
    )

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.first_number: int | None = None
        self.records = 0
        self.batches = 0
        self.ranges: dict[str, RangeSet] = {}
        self.settled: tuple[Settled, ...] = ()
        self.times_us: dict[str, tuple[int, int]] = {}
        self.first_ms = self.last_ms = 0

    def take(self, meta: Meta, size_bytes: int = 0) -> None:
        """Add a record."""
        if self.first_number is None:
            self.first_number, self.first_ms = meta.number, meta.sealed_at_ms
        self.last_ms = max(self.last_ms, meta.sealed_at_ms)
        self.size_bytes += size_bytes
        self.records += 1
        self.batches += len(meta.batches)
        self.settled = (*self.settled, *meta.settled)
        for contract, held in ranges_of(meta).items():
            self.ranges[contract] = ranges.union((*self.ranges.get(contract, ()), *held))
        for contract, (first_us, last_us) in meta.times_us.items():
            low, high = self.times_us.get(contract, (first_us, last_us))
            self.times_us[contract] = (min(low, first_us), max(high, last_us))

    def summary(self, checkpoint: Checkpoint) -> Summary:
        """Return what its index will end with; `checkpoint` is after its last record."""
        assert self.first_number is not None
        return Summary(
            first_number=self.first_number,
            records=self.records,
            ranges=self.ranges,
            settled=self.settled,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            times_us=self.times_us,
            checkpoint=checkpoint,
        )

    def is_held(self, committed: Mapping[str, RangeSet]) -> bool:
        """Say whether these ranges cover everything in it."""
        return all(
            ranges.covers(committed.get(contract, ()), *span) for contract, held in self.ranges.items() for span in held
        )


def segment_name(number: int) -> str:
    """Return the name of a segment's file."""
    return f"segment-{number:08d}.log"


def index_name(number: int) -> str:
    """Return the name of a segment's index."""
    return f"segment-{number:08d}.idx"


def ranges_of(meta: Meta) -> dict[str, RangeSet]:
    """Return what a record accounts for, by contract."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for batch in meta.batches:
        spans.setdefault(batch.contract, []).append((batch.first_seq, batch.end_seq))
    return {contract: ranges.union(found) for contract, found in spans.items()}


def block_id(number: int, place: int) -> int:
    """Return what tells a block of a record from every other of its spool."""
    return (number << 16) + place


def pending_of(entry: Indexed, segment: int, overhead_bytes: int) -> tuple[PendingBatch, ...]:
    """Return a record's batches with the places where they lie; blocks are so much longer than what is in them."""
    pending = []
    at = entry.body_offset
    for place, ref in enumerate(entry.meta.batches):
        number = block_id(entry.meta.number, place)
        pending.append(
            PendingBatch(number, ref.contract, ref.first_seq, ref.span, segment, at, ref.length, ref.rows, ref.key)
        )
        at += ref.length + overhead_bytes
    return tuple(pending)
