"""The spool: everything sealed and not yet committed by the lake, on disk.

Files in its folder: `spool.json` (whose it is, and its epoch), `segment-N.log` with `segment-N.idx`, `cursor.json`.
A batch leaves the spool only with its whole segment, and only when `commit` has named every batch of it.
"""

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Wire, add_wire, merge
from edge_agent.core.record import (
    SEGMENT_HEADER_BYTES,
    Cursor,
    Meta,
    encode_cursor,
    frame,
    segment_header,
)
from edge_agent.core.recovery import (
    CURSOR_FILE,
    IDENTITY_FILE,
    Identity,
    PendingBatch,
    Recovered,
    Segment,
    index_name,
    pending_of,
    recover,
    segment_name,
)
from edge_agent.core.sealing import SealedBatch
from edge_agent.errors import SpoolError, SpoolWriteError
from edge_agent.ports import Disk

SEGMENT_BYTES: Final = 4_194_304  # bytes; small enough to be freed soon, large enough that 256 MB are 64 files
QUOTA_BYTES: Final = 268_435_456  # bytes; a spool this full slows its source down, nothing is dropped


class Group(Struct, frozen=True):
    """What one flush produced: durable together or not at all. One that `settles` accounts for all that is missing."""

    meta: Meta
    batches: tuple[SealedBatch, ...]
    settles: bool = False


def open_spool(disk: Disk, wanted: Identity) -> "Spool":
    """Open or create a device's spool; `wanted.epoch` is taken only when it is created. Raises SpoolError."""
    names = disk.names()
    filled = [name for name in names if name.startswith("segment-") or name == CURSOR_FILE]
    if IDENTITY_FILE not in names:
        if filled:
            raise SpoolError(
                f"spool: found {filled[0]} but no {IDENTITY_FILE}: put the file back, or move the folder away to start "
                "a new epoch"
            )
        disk.replace(IDENTITY_FILE, msgspec.json.encode(wanted))
        return Spool(disk, wanted.epoch, Recovered())
    try:
        found = msgspec.json.decode(disk.read(IDENTITY_FILE), type=Identity)
    except msgspec.DecodeError as error:
        raise SpoolError(f"spool: {IDENTITY_FILE} cannot be read ({error}): put it back from a copy") from error
    if msgspec.structs.replace(found, epoch=0) != msgspec.structs.replace(wanted, epoch=0):
        raise SpoolError(
            f"spool of {found.device}, contract {found.contract}, source {found.source_crc32:#010x}: asked for "
            f"{wanted.device}, {wanted.contract}, {wanted.source_crc32:#010x}: give each source a spool_dir of its own"
        )
    return Spool(disk, found.epoch, recover(disk, names))


class Spool:
    """An open spool. `recovered` is what was found at the start."""

    def __init__(self, disk: Disk, epoch: int, recovered: Recovered) -> None:
        self.epoch = epoch
        self.recovered = recovered
        self._disk = disk
        self._segments: dict[int, Segment] = {segment.number: segment for segment in recovered.segments}
        self._active: Segment | None = None
        self._next_segment = max([*self._segments, *recovered.deleted], default=0) + 1
        self._next_id = len(recovered.pending)
        self._newest = recovered.newest
        self._freed: dict[str, RangeSet] = dict(recovered.freed)
        self._freed_counts: tuple[Count, ...] = recovered.freed_counts
        self._freed_wire: Wire = recovered.freed_wire
        self._holding = bool(recovered.missing)

    @property
    def size_bytes(self) -> int:
        """Bytes in segments."""
        return sum(segment.size_bytes for segment in self._segments.values())

    @property
    def is_damaged(self) -> bool:
        """Say whether ranges are missing that no record has accounted for yet."""
        return self._holding

    @property
    def observed(self) -> dict[str, int]:
        """How many events of each stream the durable records account for."""
        return dict(self._newest.next_seq) if self._newest is not None else {}

    def freed(self, contract: str) -> RangeSet:
        """Return what was deleted of a stream because the lake holds it."""
        return self._freed.get(contract, ())

    @property
    def counts(self) -> tuple[Count, ...]:
        """Everything that records of this epoch accounted for, freed ones too."""
        return merge([*self._freed_counts, *(count for s in self._segments.values() for count in s.counts)])

    @property
    def wire(self) -> Wire:
        """What these records cost on the wire."""
        total = self._freed_wire
        for segment in self._segments.values():
            total = add_wire(total, segment.wire)
        return total

    def append(self, group: Group) -> tuple[PendingBatch, ...]:
        """Make a group durable and return its batches; only then may they be published.

        1. frame   the record goes to the end of the active segment. Crash after: a torn tail, cut off at the next
                   start; its events are read from the source again, under the same numbers.
        2. sync    the record survives a power cut. Crash after: the next start finds and publishes it.
        3. index   the record's metadata a second time: should its bytes rot, they can no longer pass for a torn tail.

        Raises SpoolWriteError: nothing of the group may be published, the same group may be appended again.
        """
        body = b"".join(batch.data for batch in group.batches)
        data = frame(group.meta, body)
        try:
            segment = self._writable()
            offset = segment.size_bytes
            self._disk.append(segment_name(segment.number), data)  # Step 1.
            self._disk.sync(segment_name(segment.number))  # Step 2.
            self._disk.append(index_name(segment.number), frame(group.meta, b""))  # Step 3.
        except OSError as error:
            self._abandon()
            raise SpoolWriteError(
                f"spool: {len(data)} bytes could not be written: {error.strerror}: free some disk, they wait in memory"
            ) from error
        pending = pending_of(group.meta, segment.number, offset + len(data) - len(body), self._next_id)
        self._next_id += len(pending)
        segment.take(group.meta, len(data))
        self._newest = group.meta
        if group.settles:
            self._holding = False  # Segments may be deleted again.
        return pending

    def read(self, batch: PendingBatch) -> bytes:
        """Return a batch as it was sealed."""
        return self._disk.read(segment_name(batch.segment), batch.offset, batch.length)

    def commit(self, batches: Iterable[PendingBatch]) -> None:
        """Note that the lake holds these batches, and delete the segments of which it holds all.

        1. cursor  what the segments amounted to, and their names, replace the old cursor. Crash after: the next start
                   finds the names in the cursor, deletes the segments and does not count them twice.
        2. delete  the files go.
        """
        for batch in batches:
            self._segments[batch.segment].waiting -= 1
        done = [s for s in self._segments.values() if s.waiting == 0 and s is not self._active]
        if self._holding or not done or self._newest is None:
            return
        for segment in done:
            for contract, held in segment.ranges.items():
                self._freed[contract] = ranges.union((*self._freed.get(contract, ()), *held))
            self._freed_counts = merge([*self._freed_counts, *segment.counts])
            self._freed_wire = add_wire(self._freed_wire, segment.wire)
            del self._segments[segment.number]
        deleted = tuple(segment.number for segment in done)
        cursor = Cursor(self._newest, self._freed, self._freed_counts, self._freed_wire, deleted)
        self._disk.replace(CURSOR_FILE, encode_cursor(cursor))  # Step 1.
        for number in deleted:  # Step 2.
            self._disk.delete(segment_name(number))
            self._disk.delete(index_name(number))

    def finish(self) -> None:
        """Let the last segment go too, once the lake holds all of it: what remains is the cursor."""
        self._active = None
        self.commit(())

    def _writable(self) -> Segment:
        if self._active is not None and self._active.size_bytes >= SEGMENT_BYTES:
            self._active = None
        if self._active is None:
            segment = Segment(self._next_segment, SEGMENT_HEADER_BYTES)
            self._next_segment += 1
            header = segment_header(self.epoch)
            self._disk.append(segment_name(segment.number), header)
            self._disk.append(index_name(segment.number), header)
            self._segments[segment.number] = self._active = segment
        return self._active

    def _abandon(self) -> None:
        """Leave a segment whose end is uncertain; the next record opens another."""
        segment, self._active = self._active, None
        if segment is None:
            return
        try:
            self._disk.truncate(segment_name(segment.number), segment.size_bytes)
        except OSError:
            # The next start steps over what is left there: the index does not know it.
            return
