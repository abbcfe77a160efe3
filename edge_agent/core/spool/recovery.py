"""What a spool's files say at a start: up to where events are accounted for, and which segments hold them.

A segment that ended well says so at the end of its index, in some hundred bytes; only the segment that a crash left
open is read whole. So a start takes the same time and memory whether the spool holds a megabyte or gigabytes.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import add_wire, merge
from edge_agent.core.spool.record import (
    SUMMARY_END_BYTES,
    Checkpoint,
    Indexed,
    Meta,
    Scan,
    Summary,
    decode_cursor,
    frame,
    scan,
    scan_index,
    summary_bytes,
    summary_frame,
    summary_of,
)
from edge_agent.core.spool.segment import Segment, index_name, segment_name
from edge_agent.errors import SpoolError
from edge_agent.ports import Disk

CURSOR_FILE: Final = "cursor.json"


class Recovered(Struct, frozen=True):
    """`gaps` are ranges that no segment and no cursor accounts for: whole files have gone, or more than one has rotted.

    `held` is what the lake was known to hold when the cursor was last written. `cursor_rotted` says that the sums of
    deleted segments may be gone: the ledger may not add up, and must say so. `emptied_epoch` is the one before, when
    all that was stored in it has been taken away. `is_noted` says that the cursor speaks of a record.
    """

    checkpoint: Checkpoint | None = None
    segments: tuple[Segment, ...] = ()
    held: dict[str, RangeSet] = {}
    gaps: dict[str, RangeSet] = {}
    deleted: tuple[int, ...] = ()
    cursor_rotted: bool = False
    emptied_epoch: int | None = None
    is_noted: bool = False

    @property
    def is_emptied(self) -> bool:
        """Say whether records are known to have been there, not all of which the lake has, and no segment is left."""
        return bool(self.gaps) and not self.segments

    @property
    def newest(self) -> Meta | None:
        """Metadata of the newest record."""
        return self.checkpoint.newest if self.checkpoint is not None else None


class _Salvaged(Struct, frozen=True):
    """A segment that was never finished: its records by number, as the segment and its index know them."""

    number: int
    size_bytes: int
    metas: dict[int, Meta]
    unindexed: tuple[Indexed, ...]


def recover(disk: Disk, names: list[str]) -> Recovered:
    """Read the spool's files, finish a deletion that a crash interrupted, cut off torn tails. Raises SpoolError."""
    cursor = decode_cursor(disk.read(CURSOR_FILE)) if CURSOR_FILE in names else None
    deleted = cursor.deleted if cursor is not None else ()
    for number in deleted:
        disk.delete(segment_name(number))
        disk.delete(index_name(number))
    # An index without its segment still says which numbers are taken, and that their events are gone.
    numbers = sorted(
        {int(name[8:-4]) for name in names if name.startswith("segment-") and name.endswith((".log", ".idx"))}
    )
    found = [_read(disk, names, number) for number in numbers if number not in deleted]
    checkpoint = cursor.checkpoint if cursor is not None else None
    segments: list[Segment] = []
    for place, one in enumerate(found):
        if isinstance(one, _Salvaged):
            later = min((_first_number(other) for other in found[place + 1 :]), default=None)
            segment, checkpoint = _finished(disk, one, checkpoint, later)
        else:
            segment, summary = one
            newest = summary.checkpoint.newest.number
            if checkpoint is None or newest > checkpoint.newest.number:
                checkpoint = summary.checkpoint
        if segment.records:
            segments.append(segment)
        else:  # Nothing of it was ever durable.
            disk.delete(segment_name(segment.number))
            disk.delete(index_name(segment.number))
    rotted = CURSOR_FILE in names and cursor is None
    if rotted and checkpoint is None:
        raise SpoolError(f"spool: {CURSOR_FILE} has rotted and no record is left: move the folder away to start anew")
    held = dict(cursor.held) if cursor is not None else {}
    gaps = _gaps(checkpoint, held, segments)
    noted = cursor is not None and cursor.checkpoint is not None
    return Recovered(checkpoint, tuple(segments), held, gaps, deleted, rotted, is_noted=noted)


def read_index(disk: Disk, segment: Segment) -> tuple[Indexed, ...]:
    """Return every record that is known of a finished segment, in order. Raises OSError."""
    names = {entry.meta.number: entry for entry in scan_index(_read_or_empty(disk, index_name(segment.number)))}
    if len(names) < segment.records:
        for whole in scan(_read_or_empty(disk, segment_name(segment.number))).frames:
            names.setdefault(whole.meta.number, Indexed(whole.body_offset, whole.meta))
    assert segment.first_number is not None
    return tuple(entry for number, entry in sorted(names.items()) if number >= segment.first_number)


def _read_or_empty(disk: Disk, name: str) -> bytes:
    return disk.read(name) if name in disk.names() else b""


def _read(disk: Disk, names: list[str], number: int) -> "tuple[Segment, Summary] | _Salvaged":
    summary = _summary(disk, number) if index_name(number) in names else None
    if summary is None:
        return _salvaged(disk, names, number)
    segment = Segment(number, disk.size(segment_name(number)) if segment_name(number) in names else 0)
    segment.first_number, segment.records = summary.first_number, summary.records
    segment.ranges, segment.settled = summary.ranges, summary.settled
    segment.first_ms, segment.last_ms, segment.times_us = summary.first_ms, summary.last_ms, summary.times_us
    return segment, summary


def _summary(disk: Disk, number: int) -> Summary | None:
    name = index_name(number)
    size = disk.size(name)
    if size < SUMMARY_END_BYTES:
        return None
    length = summary_bytes(disk.read(name, size - SUMMARY_END_BYTES, SUMMARY_END_BYTES))
    if length is None or length > size - SUMMARY_END_BYTES:
        return None
    return summary_of(disk.read(name, size - SUMMARY_END_BYTES - length, length))


def _salvaged(disk: Disk, names: list[str], number: int) -> _Salvaged:
    """Read a segment that a crash left open, and cut off what was never durable."""
    is_there = segment_name(number) in names
    data = disk.read(segment_name(number)) if is_there else b""
    found = scan(data)
    index: dict[int, Indexed] = {}
    if index_name(number) in names:
        index = {entry.meta.number: entry for entry in scan_index(disk.read(index_name(number)))}
    if _is_torn(data, found, index):
        disk.truncate(segment_name(number), found.good_end)
    if is_there:
        # A process killed between append and sync left records that a reader sees and a power cut would still take.
        disk.sync(segment_name(number))
    whole = {entry.meta.number: entry for entry in found.frames}
    return _Salvaged(
        number=number,
        size_bytes=found.good_end,
        metas={number: entry.meta for number, entry in index.items()}
        | {number: found.meta for number, found in whole.items()},
        unindexed=tuple(Indexed(f.body_offset, f.meta) for n, f in sorted(whole.items()) if n not in index),
    )


def _is_torn(data: bytes, found: Scan, index: Mapping[int, Indexed]) -> bool:
    """Say whether bytes after the last whole record were never durable: no index entry speaks of a later record."""
    last = found.frames[-1].meta.number if found.frames else -1
    return len(data) > found.good_end and not any(number > last for number in index)


def _first_number(found: "tuple[Segment, Summary] | _Salvaged") -> int:
    if isinstance(found, _Salvaged):
        return min(found.metas, default=2**63)
    return found[1].first_number


def _finished(
    disk: Disk, salvaged: _Salvaged, before: Checkpoint | None, later: int | None
) -> tuple[Segment, Checkpoint | None]:
    """Add up a salvaged segment and end its index, so that the next start need not read it again.

    A record that a `later` segment begins with was written there again, because its outcome here was unknown.
    """
    segment = Segment(salvaged.number, salvaged.size_bytes)
    metas = [meta for number, meta in sorted(salvaged.metas.items()) if later is None or number < later]
    for meta in metas:
        segment.take(meta)
    checkpoint = advanced(before, metas)
    if not metas or checkpoint is None:
        return segment, before
    entries = [entry for entry in salvaged.unindexed if later is None or entry.meta.number < later]
    try:
        disk.append(
            index_name(segment.number), b"".join(map(frame, entries)) + summary_frame(segment.summary(checkpoint))
        )
        disk.sync(index_name(segment.number))
    except OSError:
        # A full disk: the segment is read whole again at the next start, which is all that its summary would save.
        return segment, checkpoint
    return segment, checkpoint


def advanced(before: Checkpoint | None, metas: Iterable[Meta]) -> Checkpoint | None:
    """Return the checkpoint after further records; those that it holds already change nothing."""
    after = before
    for meta in metas:
        if after is None:
            after = Checkpoint(meta, merge(meta.counts), meta.wire)
        elif meta.number > after.newest.number:
            after = Checkpoint(meta, merge((*after.counts, *meta.counts)), add_wire(after.wire, meta.wire))
    return after


def _gaps(
    checkpoint: Checkpoint | None, held: Mapping[str, RangeSet], segments: Iterable[Segment]
) -> dict[str, RangeSet]:
    if checkpoint is None:
        return {}
    all_held = [held, *(segment.ranges for segment in segments)]
    gaps = {}
    for contract, end in checkpoint.newest.next_seq.items():
        covered = ranges.union(span for one in all_held for span in one.get(contract, ()))
        if found := ranges.missing(covered, 0, end):
            gaps[contract] = found
    return gaps
