"""What a spool's files say at a start: what is still to be sent, where to go on, and what has rotted."""

from typing import Final

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Wire, add_wire, merge
from edge_agent.core.record import Meta, Scan, decode_cursor, scan
from edge_agent.errors import SpoolError
from edge_agent.ports import Disk

IDENTITY_FILE: Final = "spool.json"
CURSOR_FILE: Final = "cursor.json"


class Identity(Struct, frozen=True):
    """Whose spool it is. `source_crc32` is over the source's first line: in another file numbers mean other events."""

    device: str
    contract: str
    source_crc32: int
    epoch: int


class PendingBatch(Struct, frozen=True):
    """A batch in the spool that the lake is not known to hold; `id` grows in the order of sealing."""

    id: int
    contract: str
    first_seq: int
    span: int
    segment: int
    offset: int
    length: int

    @property
    def end_seq(self) -> int:
        """First sequence number after the batch."""
        return self.first_seq + self.span


class Segment:
    """A segment's sums while its spool is open. `waiting` counts batches that the lake is not known to hold."""

    def __init__(self, number: int, size_bytes: int) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.waiting = 0
        self.counts: tuple[Count, ...] = ()
        self.wire = Wire()
        self.ranges: dict[str, RangeSet] = {}

    def take(self, meta: Meta, size_bytes: int) -> None:
        """Add a record."""
        self.size_bytes += size_bytes
        self.waiting += len(meta.batches)
        self.counts = merge([*self.counts, *meta.counts])
        self.wire = add_wire(self.wire, meta.wire)
        for contract, held in ranges_of(meta).items():
            self.ranges[contract] = ranges.union((*self.ranges.get(contract, ()), *held))


class Recovered(Struct, frozen=True):
    """`missing` are ranges that no whole record accounts for; `damaged` what is known of the records that rotted.

    `ledgers` are whole records that hold ledger entries; they matter, and are named, only when something is missing.
    `cursor_rotted` says that the sums of deleted segments are gone: the ledger will not add up, and must say so.
    """

    newest: Meta | None = None
    segments: tuple[Segment, ...] = ()
    pending: tuple[PendingBatch, ...] = ()
    missing: dict[str, RangeSet] = {}
    damaged: tuple[Meta, ...] = ()
    ledgers: tuple[Meta, ...] = ()
    freed: dict[str, RangeSet] = {}
    freed_counts: tuple[Count, ...] = ()
    freed_wire: Wire = Wire()
    deleted: tuple[int, ...] = ()
    cursor_rotted: bool = False


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
        spans.setdefault(batch.contract, []).append((batch.first_seq, batch.first_seq + batch.span))
    for entry in meta.settled:
        spans.setdefault(entry.contract, []).append((entry.first_seq, entry.end_seq))
    return {contract: ranges.union(found) for contract, found in spans.items()}


def pending_of(meta: Meta, segment: int, body_offset: int, first_id: int) -> tuple[PendingBatch, ...]:
    """Return a record's batches with the places where they lie."""
    pending = []
    at = body_offset
    for place, ref in enumerate(meta.batches):
        pending.append(PendingBatch(first_id + place, ref.contract, ref.first_seq, ref.span, segment, at, ref.length))
        at += ref.length
    return tuple(pending)


def recover(disk: Disk, names: list[str]) -> Recovered:
    """Read the spool's files, finish a deletion that a crash interrupted, cut off torn tails. Raises SpoolError."""
    cursor = decode_cursor(disk.read(CURSOR_FILE)) if CURSOR_FILE in names else None
    deleted = cursor.deleted if cursor is not None else ()
    for number in deleted:
        disk.delete(segment_name(number))
        disk.delete(index_name(number))
    numbers = sorted(int(name[8:-4]) for name in names if name.startswith("segment-") and name.endswith(".log"))
    segments: list[Segment] = []
    pending: list[PendingBatch] = []
    known: dict[int, Meta] = {}
    indexed: dict[int, Meta] = {}
    for number in numbers:
        if number not in deleted:
            segment, index = _read_segment(disk, names, number, known, pending)
            segments.append(segment)
            indexed.update(index)
    newest = max(
        [*known.values(), *indexed.values(), *((cursor.newest,) if cursor else ())],
        key=lambda meta: meta.number,
        default=None,
    )
    rotted = CURSOR_FILE in names and cursor is None
    if rotted and newest is None:
        raise SpoolError(f"spool: {CURSOR_FILE} has rotted and no record is left: move the folder away to start anew")
    freed = dict(cursor.freed) if cursor is not None else {}
    missing = _missing(newest, [freed, *(segment.ranges for segment in segments)])
    damaged = [meta for number, meta in sorted(indexed.items()) if number not in known and _touches(meta, missing)]
    return Recovered(
        newest=newest,
        segments=tuple(segments),
        pending=tuple(pending),
        missing=missing,
        damaged=tuple(damaged),
        ledgers=tuple(meta for meta in known.values() if missing and meta.explained),
        freed=freed,
        freed_counts=cursor.counts if cursor is not None else (),
        freed_wire=cursor.wire if cursor is not None else Wire(),
        deleted=deleted,
        cursor_rotted=rotted,
    )


def _read_segment(
    disk: Disk, names: list[str], number: int, known: dict[int, Meta], pending: list[PendingBatch]
) -> tuple[Segment, dict[int, Meta]]:
    """Take in one segment's whole records, once each, and return it with the metadata in its index."""
    data = disk.read(segment_name(number))
    found = scan(data)
    index = {}
    if index_name(number) in names:
        index = {entry.meta.number: entry.meta for entry in scan(disk.read(index_name(number))).frames}
    if _is_torn(data, found, index):
        disk.truncate(segment_name(number), found.good_end)
    # A process killed between append and sync left records that a reader sees and a power cut would still take.
    disk.sync(segment_name(number))
    segment = Segment(number, found.good_end)
    for entry in found.frames:
        if entry.meta.number in known:
            continue  # A write whose outcome was unknown was made again in the next segment.
        known[entry.meta.number] = entry.meta
        pending.extend(pending_of(entry.meta, number, entry.body_offset, len(pending)))
        segment.take(entry.meta, 0)
    return segment, index


def _is_torn(data: bytes, found: Scan, index: dict[int, Meta]) -> bool:
    """Say whether bytes after the last whole record were never durable: no index entry speaks of a later record."""
    last = found.frames[-1].meta.number if found.frames else -1
    return len(data) > found.good_end and not any(number > last for number in index)


def _missing(newest: Meta | None, held: list[dict[str, RangeSet]]) -> dict[str, RangeSet]:
    if newest is None:
        return {}
    gaps = {}
    for contract, end in newest.next_seq.items():
        covered = ranges.union(span for one in held for span in one.get(contract, ()))
        if found := ranges.missing(covered, 0, end):
            gaps[contract] = found
    return gaps


def _touches(meta: Meta, missing: dict[str, RangeSet]) -> bool:
    return any(
        first < gap_end and gap_first < end
        for contract, held in ranges_of(meta).items()
        for first, end in held
        for gap_first, gap_end in missing.get(contract, ())
    )
