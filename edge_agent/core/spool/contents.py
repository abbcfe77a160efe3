"""What the segments of a spool hold, read from the disk as it is asked for."""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from contracts import ranges
from contracts.microbatch import SEQ_MAX
from contracts.ranges import RangeSet
from edge_agent.core.consent.person_keys import PersonKeys, label_of
from edge_agent.core.spool.blocks import TRAVELS, Blocks
from edge_agent.core.spool.damage import Damage, damage_of, damages_of
from edge_agent.core.spool.places import Place, place_of
from edge_agent.core.spool.record import Meta
from edge_agent.core.spool.recovery import Recovered, read_index
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.spool.retention import reaches
from edge_agent.core.spool.segment import PendingBatch, Segment, pending_of, segment_name
from edge_agent.ports import Cipher, Disk


class Loaded(Struct, frozen=True):
    """A segment's batches that the lake is not known to hold, and the ranges of records that have rotted."""

    pending: tuple[PendingBatch, ...]
    damages: tuple[Damage, ...]


class Contents:
    """The segments of an epoch, by number, oldest first."""

    def __init__(
        self, disk: Disk, epoch: int, recovered: Recovered, cipher: Cipher | None, persons: PersonKeys | None = None
    ) -> None:
        self.epoch = epoch
        self.recovered = recovered
        self._persons = persons
        self._blocks = Blocks(cipher, epoch, persons)
        self._disk = disk
        self._segments: dict[int, Segment] = {segment.number: segment for segment in recovered.segments}
        self._settled: dict[str, RangeSet] = {}
        for segment in recovered.segments:
            for one in segment.settled:
                self._note_settled(one.contract, one.first_seq, one.end_seq)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, oldest first; the last may still take records."""
        return tuple(self._segments.values())

    @property
    def settled(self) -> dict[str, RangeSet]:
        """Ranges whose events records have accounted for as lost, or as refused by the person they are of."""
        return self._settled

    def read(self, batch: PendingBatch) -> bytes | None:
        """Return a batch as it was sealed; None when it is certain to have rotted, or its person's key is gone.

        Raises OSError.
        """
        length = batch.length + self._blocks.overhead_bytes
        try:
            block = self._disk.read(segment_name(batch.segment), batch.offset, length)
        except FileNotFoundError:
            return None
        data = self._blocks.opened(block, batch.id)
        return self._blocks.unlocked(data, batch.key, label_of(batch.contract, batch.first_seq, TRAVELS))

    def is_withdrawn(self, batch: PendingBatch) -> bool:
        """Say whether a batch cannot be read because the person that its rows are of has refused."""
        return self._persons is not None and batch.key in self._persons.withdrawn

    def metas(self, number: int) -> tuple[Meta, ...]:
        """Return the metadata of a segment's records, none when the segment is gone. Raises OSError."""
        segment = self._segments.get(number)
        if segment is None or not segment.records:
            return ()
        return tuple(entry.meta for entry in read_index(self._disk, segment))

    def load(self, number: int, committed: Mapping[str, RangeSet]) -> Loaded:
        """Return what of a segment must still reach the lake. Raises OSError."""
        segment = self._segments[number]
        entries = read_index(self._disk, segment)
        pending: list[PendingBatch] = []
        for entry in entries:
            own = _settled_by(entry.meta)
            pending += [
                batch
                for batch in pending_of(entry, number, self._blocks.overhead_bytes)
                if not ranges.covers(committed.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                # What was settled goes as the record says that settled it.
                and (
                    ranges.covers(own.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                    or not ranges.covers(self._settled.get(batch.contract, ()), batch.first_seq, batch.end_seq)
                )
            ]
        found = damages_of(segment.ranges, [entry.meta for entry in entries])
        return Loaded(tuple(pending), tuple(damage for damage in found if self.is_open(damage, committed)))

    def places(self, number: int, contract: str) -> tuple[Place, ...]:
        """Return where a stream's events lie in a segment, record by record. Raises OSError."""
        found = (
            place_of(entry, number, self._blocks.overhead_bytes, contract)
            for entry in read_index(self._disk, self._segments[number])
        )
        return tuple(place for place in found if place is not None)

    def damage(self, batch: PendingBatch) -> Damage:
        """Return what is gone with a batch that has rotted. Raises OSError."""
        for entry in read_index(self._disk, self._segments[batch.segment]):
            for ref in entry.meta.batches:
                if (ref.contract, ref.first_seq) == (batch.contract, batch.first_seq):
                    return damage_of(ref, entry.meta)
        return Damage(batch.contract, batch.first_seq, batch.span, batch.rows)

    def replay(self, first_seqs: Mapping[str, int]) -> Iterator[Replayed]:
        """Yield what the spool holds of streams from these numbers on, record by record; what has rotted is left out.

        Raises OSError.
        """
        for segment in self.segments:
            if not reaches(segment, first_seqs.items()):
                continue
            entries = read_index(self._disk, segment)
            data = self._disk.read(segment_name(segment.number))
            for entry in entries:
                for one in self._blocks.replayed(entry, data):
                    if one.end_seq > first_seqs.get(one.contract, SEQ_MAX):
                        yield one

    def seq_since(self, contract: str, since_ms: int) -> int | None:
        """Return a number before which the spool holds nothing of a stream that was sealed since; None without any."""
        firsts = [
            segment.ranges[contract][0][0]
            for segment in self.segments
            if segment.last_ms >= since_ms and contract in segment.ranges
        ]
        return min(firsts, default=None)

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

    def _note_settled(self, contract: str, first: int, end: int) -> None:
        self._settled[contract] = ranges.add(self._settled.get(contract, ()), first, end)


def _settled_by(meta: Meta) -> dict[str, RangeSet]:
    settled: dict[str, RangeSet] = {}
    for one in meta.settled:
        settled[one.contract] = ranges.add(settled.get(one.contract, ()), one.first_seq, one.end_seq)
    return settled
