"""The spool: everything sealed and not yet committed by the lake, on disk.

Files in its folder: `spool.json` (whose it is, and its epoch), `segment-N.log` with `segment-N.idx`, `cursor.json`.
A batch leaves the spool only with its whole segment, and only when the lake is known to hold all of that.
"""

import errno
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Wire
from edge_agent.core.codec.sealing import SealedBatch
from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.spool.contents import Contents
from edge_agent.core.spool.record import (
    SEGMENT_HEADER_BYTES,
    Checkpoint,
    Cursor,
    Indexed,
    Meta,
    encode_cursor,
    frame,
    segment_header,
    summary_frame,
)
from edge_agent.core.spool.recovery import (
    CURSOR_FILE,
    Recovered,
    advanced,
)
from edge_agent.core.spool.reserve import Reserve
from edge_agent.core.spool.retention import Retention, expired
from edge_agent.core.spool.segment import PendingBatch, Segment, index_name, pending_of, segment_name
from edge_agent.errors import SpoolWriteError
from edge_agent.ports import Cipher, Disk

SEGMENT_BYTES: Final = 4_194_304  # bytes; small enough to be freed soon, large enough that 2 GB are 512 files
SEGMENT_BATCHES: Final = 1_024  # batches; what is loaded of a segment at once stays under 0.5 MB of memory


class Group(Struct, frozen=True):
    """What one flush produced, durable together or not at all; `stored` are the bytes of `meta.stored`.

    One that `is_account` holds no events, only what became of some: ledger entries, windows. One that `is_backlog`
    travels behind what happens now.
    """

    meta: Meta
    batches: tuple[SealedBatch, ...]
    stored: tuple[bytes, ...] = ()
    is_account: bool = False
    is_backlog: bool = False


class Spool(Contents):
    """An open spool: `Contents`, written on, and freed."""

    def __init__(
        self,
        disk: Disk,
        epoch: int,
        recovered: Recovered,
        cipher: Cipher | None,
        retention: Retention,
        quota_bytes: int,
        persons: PersonKeys | None = None,
    ) -> None:
        super().__init__(disk, epoch, recovered, cipher, persons)
        self.retention = retention
        self.quota_bytes = quota_bytes
        self.size_bytes = sum(segment.size_bytes for segment in recovered.segments)
        self._active: Segment | None = None
        self.reserve = Reserve(disk)
        self._next_segment = max([*self._segments, *recovered.deleted], default=0) + 1
        self._checkpoint: Checkpoint | None = recovered.checkpoint
        self._is_noted = recovered.is_noted
        self._held: dict[str, RangeSet] = dict(recovered.held)
        self._done: set[int] = set()  # segments of which the lake holds everything
        self._note_done({})

    @property
    def done(self) -> frozenset[int]:
        """Segments of which the lake holds everything; they stay for those who ask later."""
        return frozenset(self._done)

    @property
    def owed_bytes(self) -> int:
        """Bytes in the others."""
        return self.size_bytes - sum(self._segments[number].size_bytes for number in self._done)

    @property
    def observed(self) -> dict[str, int]:
        """How many events of each stream the durable records account for."""
        return dict(self._checkpoint.newest.next_seq) if self._checkpoint is not None else {}

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

        On a full disk the reserve is given up for records without events of their own, which say what was dropped or
        lost. Raises SpoolWriteError: nothing of the group may be published, the same group may be appended again.
        """
        if self.reserve.is_spent and not group.is_account:
            raise SpoolWriteError(_unwritten(group, "the disk is full"))
        try:
            return self._append(group)
        except OSError as error:
            self._abandon()
            if not group.is_account or not self.reserve.give_up(error):
                raise SpoolWriteError(_unwritten(group, error.strerror)) from error
        try:
            return self._append(group)
        except OSError as error:
            self._abandon()
            raise SpoolWriteError(_unwritten(group, error.strerror)) from error

    def free_bytes(self) -> int | None:
        """Return how much more the disk can hold; None when it does not say."""
        return self._disk.free_bytes()

    def _append(self, group: Group) -> tuple[PendingBatch, ...]:
        body = self._blocks.sealed(group.meta.number, (*(batch.data for batch in group.batches), *group.stored))
        data = frame(group.meta, body)
        segment = self._writable()
        entry = Indexed(segment.size_bytes + len(data) - len(body), group.meta)
        self._disk.append(segment_name(segment.number), data)  # Step 1.
        self._disk.sync(segment_name(segment.number))  # Step 2.
        self._disk.append(index_name(segment.number), frame(entry))  # Step 3.
        segment.take(group.meta, len(data))
        self.size_bytes += len(data)
        self._checkpoint = advanced(self._checkpoint, (group.meta,))
        self._note_first()
        for one in group.meta.settled:
            self._note_settled(one.contract, one.first_seq, one.end_seq)
        return pending_of(entry, segment.number, self._blocks.overhead_bytes)

    def free(self, committed: Mapping[str, RangeSet], now_ms: int) -> tuple[int, ...]:
        """Delete segments of which the lake holds everything and that need not stay; return their numbers.

        A segment stays as long as retention says, and while open windows would be filled from it after a restart.

        1. cursor  what all records amount to, and the segments' names, replace the old cursor. Crash after: the next
                   start finds the names in the cursor, deletes the segments and does not count them twice.
        2. delete  the files go.

        On a disk without room for the cursor the oldest segment goes before. Crash between: the next start misses its
        ranges, until the lake says that it has them; what they amounted to is in the summaries of later segments.

        Raises SpoolWriteError: nothing is lost, the same may be asked again.
        """
        self._note_done(committed)
        marks = self._checkpoint.newest.open_windows if self._checkpoint is not None else {}
        first_seqs = {stream: min(mark.first_seq for mark in opened) for stream, opened in marks.items() if opened}
        deleted = expired([self._segments[number] for number in self._done], self.retention, first_seqs, now_ms)
        if not deleted:
            return ()
        try:
            try:
                self._write_cursor(committed, deleted)  # Step 1.
            except OSError as error:
                if not self.reserve.give_up(error):
                    if error.errno != errno.ENOSPC or deleted[0] == max(self._segments):
                        raise
                    self._delete(deleted[0])
                self._write_cursor(committed, deleted)
            for number in deleted:  # Step 2.
                self._delete(number)
        except OSError as error:
            raise SpoolWriteError(f"spool: {CURSOR_FILE} could not be replaced: {error.strerror}") from error
        return deleted

    def _delete(self, number: int) -> None:
        self._disk.delete(segment_name(number))
        self._disk.delete(index_name(number))
        segment = self._segments.pop(number, None)
        if segment is not None:
            self._held = _union(self._held, segment.ranges)
            self._done.discard(number)
            self.size_bytes -= segment.size_bytes

    def _note_done(self, committed: Mapping[str, RangeSet]) -> None:
        held = _union(self._held, committed)
        self._done |= {
            number
            for number, segment in self._segments.items()
            if number not in self._done and segment is not self._active and segment.is_held(held)
        }

    def _write_cursor(self, committed: Mapping[str, RangeSet], deleted: tuple[int, ...]) -> None:
        if self._checkpoint is None:
            return
        held = _union(self._held, committed)
        for number in deleted:
            if number in self._segments:
                held = _union(held, self._segments[number].ranges)
        self._disk.replace(CURSOR_FILE, encode_cursor(Cursor(self._checkpoint, held, deleted)))
        self._held, self._is_noted = held, True

    def note(self, committed: Mapping[str, RangeSet]) -> None:
        """Write down what the lake holds, so that the next start need not ask. Raises SpoolWriteError."""
        try:
            self._write_cursor(committed, ())
        except OSError as error:
            raise SpoolWriteError(f"spool: {CURSOR_FILE} could not be replaced: {error.strerror}") from error

    def _note_first(self) -> None:
        """Have the cursor speak of records from the first one on: should all be taken away, that must show."""
        if self._is_noted:
            return
        try:
            self._write_cursor({}, ())
        except OSError:
            return  # The record is durable; the next one asks again.

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

    def _writable(self) -> Segment:
        if self._active is not None and (
            self._active.size_bytes >= SEGMENT_BYTES or self._active.batches >= SEGMENT_BATCHES
        ):
            self.finish()
        if self._active is None:
            segment = Segment(self._next_segment, SEGMENT_HEADER_BYTES)
            self._next_segment += 1
            header = segment_header(self.epoch)
            try:
                self._disk.append(segment_name(segment.number), header)
                self._disk.append(index_name(segment.number), header)
            except OSError:
                self._discard(segment.number)
                raise
            self._segments[segment.number] = self._active = segment
            self.size_bytes += segment.size_bytes
        return self._active

    def _discard(self, number: int) -> None:
        """Remove what there is of a segment that could not be begun: a full disk would collect one with every try."""
        try:
            self._disk.delete(segment_name(number))
            self._disk.delete(index_name(number))
        except OSError:
            return  # The next start removes segments without records.

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


def _unwritten(group: Group, why: str | None) -> str:
    size_bytes = sum(len(batch.data) for batch in group.batches) + sum(map(len, group.stored))
    return f"spool: {size_bytes} bytes could not be written: {why}: free some disk, they wait in memory"


def _union(one: Mapping[str, RangeSet], other: Mapping[str, RangeSet]) -> dict[str, RangeSet]:
    return {contract: ranges.union((*one.get(contract, ()), *other.get(contract, ()))) for contract in {**one, **other}}
