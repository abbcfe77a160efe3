"""The spool: everything sealed and not yet committed by the lake, on disk.

Files in its folder: `spool.json` (whose it is, and its epoch), `segment-N.log` with `segment-N.idx`, `cursor.json`.
A batch leaves the spool only with its whole segment, and only when the lake is known to hold all of that.
"""

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from contracts import ranges
from contracts.microbatch import SEQ_MAX
from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Wire
from edge_agent.core.damage import Damage, damage_of, damages_of
from edge_agent.core.record import (
    SEGMENT_HEADER_BYTES,
    Checkpoint,
    Cursor,
    Indexed,
    Meta,
    StoredRef,
    encode_cursor,
    frame,
    segment_header,
    summary_frame,
)
from edge_agent.core.recovery import (
    CURSOR_FILE,
    FORMAT,
    IDENTITY_FILE,
    Identity,
    PendingBatch,
    Recovered,
    Segment,
    advanced,
    index_name,
    pending_of,
    read_index,
    recover,
    segment_name,
)
from edge_agent.core.replay import Replayed
from edge_agent.core.sealing import SealedBatch
from edge_agent.errors import SpoolError, SpoolWriteError
from edge_agent.ports import Disk

SEGMENT_BYTES: Final = 4_194_304  # bytes; small enough to be freed soon, large enough that 2 GB are 512 files
SEGMENT_BATCHES: Final = 1_024  # batches; what is loaded of a segment at once stays under 0.5 MB of memory
QUOTA_BYTES: Final = 268_435_456  # bytes; a spool this full slows its source down, nothing is dropped


class Group(Struct, frozen=True):
    """What one flush produced, durable together or not at all; `stored` are the bytes of `meta.stored`."""

    meta: Meta
    batches: tuple[SealedBatch, ...]
    stored: tuple[bytes, ...] = ()


class Loaded(Struct, frozen=True):
    """A segment's batches that the lake is not known to hold, and the ranges of records that have rotted."""

    pending: tuple[PendingBatch, ...]
    damages: tuple[Damage, ...]


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
    if found.format != FORMAT:
        raise SpoolError(
            f"spool: {IDENTITY_FILE} has format {found.format}, this agent writes {FORMAT}: drain it with the agent "
            "that wrote it, then move the folder away"
        )
    if msgspec.structs.replace(found, epoch=0) != msgspec.structs.replace(wanted, epoch=0):
        raise SpoolError(
            f"spool of {found.device}, contract {found.contract}, source {found.source_crc32:#010x}: asked for "
            f"{wanted.device}, {wanted.contract}, {wanted.source_crc32:#010x}: give each source a spool_dir of its own"
        )
    return Spool(disk, found.epoch, recover(disk, names))


class Spool:
    """An open spool."""

    def __init__(self, disk: Disk, epoch: int, recovered: Recovered, quota_bytes: int = QUOTA_BYTES) -> None:
        self.epoch = epoch
        self.recovered = recovered
        self.quota_bytes = quota_bytes
        self.size_bytes = sum(segment.size_bytes for segment in recovered.segments)
        self._disk = disk
        self._segments: dict[int, Segment] = {segment.number: segment for segment in recovered.segments}
        self._active: Segment | None = None
        self._next_segment = max([*self._segments, *recovered.deleted], default=0) + 1
        self._checkpoint: Checkpoint | None = recovered.checkpoint
        self._held: dict[str, RangeSet] = dict(recovered.held)
        settled = (one for segment in recovered.segments for one in segment.settled)
        self._settled: dict[str, RangeSet] = {}
        for one in settled:
            self._note_settled(one.contract, one.first_seq, one.end_seq)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, oldest first; the last may still take records."""
        return tuple(self._segments.values())

    @property
    def observed(self) -> dict[str, int]:
        """How many events of each stream the durable records account for."""
        return dict(self._checkpoint.newest.next_seq) if self._checkpoint is not None else {}

    def held(self, contract: str) -> RangeSet:
        """Return what was deleted of a stream because the lake holds it."""
        return self._held.get(contract, ())

    @property
    def counts(self) -> tuple[Count, ...]:
        """Everything that records of this epoch accounted for, deleted ones too."""
        return self._checkpoint.counts if self._checkpoint is not None else ()

    @property
    def wire(self) -> Wire:
        """What these records cost on the wire."""
        return self._checkpoint.wire if self._checkpoint is not None else Wire()

    def append(self, group: Group) -> tuple[PendingBatch, ...]:
        """Make a group durable and return its batches; only then may they be published.

        1. frame   the record goes to the end of the active segment. Crash after: a torn tail, cut off at the next
                   start; its events are read from the source again, under the same numbers.
        2. sync    the record survives a power cut. Crash after: the next start finds and publishes it.
        3. index   the record's metadata a second time: should its bytes rot, they can no longer pass for a torn tail.

        Raises SpoolWriteError: nothing of the group may be published, the same group may be appended again.
        """
        body = b"".join((*(batch.data for batch in group.batches), *group.stored))
        data = frame(group.meta, body)
        try:
            segment = self._writable()
            entry = Indexed(segment.size_bytes + len(data) - len(body), group.meta)
            self._disk.append(segment_name(segment.number), data)  # Step 1.
            self._disk.sync(segment_name(segment.number))  # Step 2.
            self._disk.append(index_name(segment.number), frame(entry))  # Step 3.
        except OSError as error:
            self._abandon()
            raise SpoolWriteError(
                f"spool: {len(data)} bytes could not be written: {error.strerror}: free some disk, they wait in memory"
            ) from error
        segment.take(group.meta, len(data))
        self.size_bytes += len(data)
        self._checkpoint = advanced(self._checkpoint, (group.meta,))
        for one in group.meta.settled:
            self._note_settled(one.contract, one.first_seq, one.end_seq)
        return pending_of(entry, segment.number)

    def read(self, batch: PendingBatch) -> bytes:
        """Return a batch as it was sealed, if it has not rotted since. Raises OSError."""
        return self._disk.read(segment_name(batch.segment), batch.offset, batch.length)

    def load(self, number: int, committed: Mapping[str, RangeSet]) -> Loaded:
        """Return what of a segment must still reach the lake. Raises OSError."""
        segment = self._segments[number]
        entries = read_index(self._disk, segment)
        pending: list[PendingBatch] = []
        for entry in entries:
            own = _settled_by(entry.meta)
            pending += [
                batch
                for batch in pending_of(entry, number)
                if not ranges.covers(committed.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                # What was settled goes as the record says that settled it.
                and (
                    ranges.covers(own.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                    or not ranges.covers(self._settled.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                )
            ]
        found = damages_of(segment.ranges, [entry.meta for entry in entries])
        return Loaded(tuple(pending), tuple(damage for damage in found if self.is_open(damage, committed)))

    def damage(self, batch: PendingBatch) -> Damage:
        """Return what is gone with a batch that has rotted."""
        try:
            entries = read_index(self._disk, self._segments[batch.segment])
        except OSError:
            entries = ()
        for entry in entries:
            for ref in entry.meta.batches:
                if (ref.contract, ref.first_seq) == (batch.contract, batch.first_seq):
                    return damage_of(ref, entry.meta)
        return Damage(batch.contract, batch.first_seq, batch.span, batch.rows)

    def replay(self, first_seqs: Mapping[str, int]) -> Iterator[Replayed]:
        """Yield what the spool holds of streams from these numbers on, record by record; what has rotted is left out.

        Raises OSError.
        """
        for segment in self.segments:
            if not _reaches(segment, first_seqs):
                continue
            entries = read_index(self._disk, segment)
            data = self._disk.read(segment_name(segment.number))
            for entry in entries:
                yield from (
                    one for one in _replayed(entry, data) if one.end_seq > first_seqs.get(one.contract, SEQ_MAX)
                )

    def gaps(self, committed: Mapping[str, RangeSet]) -> tuple[Damage, ...]:
        """Return ranges that were missing at the start, whole files of them, and that the lake does not hold."""
        return tuple(
            Damage(contract, first, end - first, None)
            for contract, gaps in self.recovered.gaps.items()
            for first, end in gaps
            if self.is_open(Damage(contract, first, end - first, None), committed)
        )

    def is_open(self, damage: Damage, committed: Mapping[str, RangeSet]) -> bool:
        """Say whether neither the lake holds a range nor a record has accounted for it as lost."""
        known = (*committed.get(damage.contract, ()), *self._settled.get(damage.contract, ()))
        return not ranges.covers(ranges.union(known), damage.first_seq, damage.end_seq)

    def free(self, committed: Mapping[str, RangeSet]) -> tuple[int, ...]:
        """Delete the segments of which the lake holds everything; return their numbers.

        A segment with events of windows that are open stays: they would be filled from it after a restart.

        1. cursor  what all records amount to, and the segments' names, replace the old cursor. Crash after: the next
                   start finds the names in the cursor, deletes the segments and does not count them twice.
        2. delete  the files go.

        Raises SpoolWriteError: nothing is lost, the same may be asked again.
        """
        if self._checkpoint is None:
            return ()
        windows = self._checkpoint.newest.open_windows.items()
        first_seqs = {stream: min(mark.first_seq for mark in marks) for stream, marks in windows if marks}
        done = [
            segment
            for segment in self._segments.values()
            if segment is not self._active and not _reaches(segment, first_seqs) and segment.is_held(committed)
        ]
        if not done:
            return ()
        held = dict(self._held)
        for segment in done:
            for contract, spans in segment.ranges.items():
                held[contract] = ranges.union((*held.get(contract, ()), *spans))
        deleted = tuple(segment.number for segment in done)
        try:
            self._disk.replace(CURSOR_FILE, encode_cursor(Cursor(self._checkpoint, held, deleted)))  # Step 1.
            for number in deleted:  # Step 2.
                self._disk.delete(segment_name(number))
                self._disk.delete(index_name(number))
        except OSError as error:
            raise SpoolWriteError(f"spool: {CURSOR_FILE} could not be replaced: {error.strerror}") from error
        self._held = held
        for segment in done:
            self.size_bytes -= segment.size_bytes
            del self._segments[segment.number]
        return deleted

    def finish(self) -> None:
        """End the active segment, so that it can be deleted too."""
        segment, self._active = self._active, None
        if segment is None:
            return
        if not segment.records:
            return  # An empty one goes at the next start.
        assert self._checkpoint is not None
        try:
            self._disk.append(index_name(segment.number), summary_frame(segment.summary(self._checkpoint)))
            self._disk.sync(index_name(segment.number))
        except OSError:
            # Without its summary the next start reads the segment whole, which costs it some time and nothing else.
            return

    def _note_settled(self, contract: str, first: int, end: int) -> None:
        self._settled[contract] = ranges.add(self._settled.get(contract, ()), first, end)

    def _writable(self) -> Segment:
        if self._active is not None and (
            self._active.size_bytes >= SEGMENT_BYTES or self._active.batches >= SEGMENT_BATCHES
        ):
            self.finish()
        if self._active is None:
            segment = Segment(self._next_segment, SEGMENT_HEADER_BYTES)
            self._next_segment += 1
            header = segment_header(self.epoch)
            self._disk.append(segment_name(segment.number), header)
            self._disk.append(index_name(segment.number), header)
            self._segments[segment.number] = self._active = segment
            self.size_bytes += segment.size_bytes
        return self._active

    def _abandon(self) -> None:
        """Leave a segment whose end is uncertain; the next record opens another."""
        segment = self._active
        if segment is None:
            return
        try:
            self._disk.truncate(segment_name(segment.number), segment.size_bytes)
        except OSError:
            # The next start steps over what is left there: the segment after begins with the same record.
            self._active = None
            return
        self.finish()


def _reaches(segment: Segment, first_seqs: Mapping[str, int]) -> bool:
    """Say whether a segment holds events of a stream from its number on."""
    return any(
        contract in segment.ranges and segment.ranges[contract][-1][1] > first for contract, first in first_seqs.items()
    )


def _replayed(entry: Indexed, segment: bytes) -> Iterator[Replayed]:
    """Yield what a record holds, by stream; streams without stored events whose batches all travelled too."""
    at = entry.body_offset
    found: dict[str, list[bytes]] = {}
    spans: dict[str, tuple[int, int]] = {}
    for ref in entry.meta.batches:
        found.setdefault(ref.contract, []).append(segment[at : at + ref.length])
        first, end = spans.get(ref.contract, (ref.first_seq, ref.end_seq))
        spans[ref.contract] = (min(first, ref.first_seq), max(end, ref.end_seq))
        at += ref.length
    stored: dict[str, tuple[StoredRef, bytes]] = {}
    for block in entry.meta.stored:
        data = segment[at : at + block.length]
        if zlib.crc32(data) == block.checksum:
            stored[block.contract] = (block, data)
        at += block.length
    for contract, (first, end) in spans.items():
        batches = tuple(found[contract])
        if contract in stored:
            block, data = stored[contract]
            yield Replayed(contract, first, end - first, batches, data, block.rows, block.raw_bytes)
        else:
            yield Replayed(contract, first, end - first, batches)


def _settled_by(meta: Meta) -> dict[str, RangeSet]:
    settled: dict[str, RangeSet] = {}
    for one in meta.settled:
        settled[one.contract] = ranges.add(settled.get(one.contract, ()), one.first_seq, one.end_seq)
    return settled
