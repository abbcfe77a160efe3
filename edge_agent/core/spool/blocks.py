"""The blocks of a record's body: sealed with the device's key where it has one, and read again in their order.

What is of a person is sealed with their key before it comes here, and opened again here.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from edge_agent.core.consent.person_keys import PersonKeys, label_of
from edge_agent.core.spool.record import Indexed, StoredRef
from edge_agent.core.spool.replay import Replayed
from edge_agent.core.spool.segment import block_id
from edge_agent.ports import Cipher

TRAVELS: Final = "travels"


class Blocks:
    """Seals and opens the blocks of one epoch. A block opens only at the place it was sealed for."""

    def __init__(self, cipher: Cipher | None, epoch: int, persons: PersonKeys | None = None) -> None:
        self.overhead_bytes = cipher.overhead_bytes if cipher is not None else 0
        self._cipher = cipher
        self._persons = persons
        self._epoch = epoch

    def sealed(self, number: int, blocks: Iterable[bytes]) -> bytes:
        """Return the body of a record."""
        if self._cipher is None:
            return b"".join(blocks)
        seal, label = self._cipher.seal, self._label
        return b"".join(seal(data, label(block_id(number, place))) for place, data in enumerate(blocks))

    def opened(self, block: bytes, number: int) -> bytes | None:
        """Return what is in the block with this id; None when it is not that any more."""
        return block if self._cipher is None else self._cipher.open(block, self._label(number))

    def unlocked(self, data: bytes | None, key: int, label: bytes) -> bytes | None:
        """Return rows of a person, what is of nobody as it is; None when it has rotted or the person's key is gone."""
        if data is None or not key:
            return data
        return self._persons.opened(key, data, label) if self._persons is not None else None

    def replayed(self, entry: Indexed, segment: bytes) -> Iterator[Replayed]:
        """Yield what a record of a segment holds, by stream; what has rotted is left out."""
        at = entry.body_offset
        batches: dict[str, list[bytes]] = {}
        spans: dict[str, tuple[int, int]] = {}
        for place, ref in enumerate(entry.meta.batches):
            data = self._at(segment, at, ref.length, block_id(entry.meta.number, place))
            data = self.unlocked(data, ref.key, label_of(ref.contract, ref.first_seq, TRAVELS))
            at += ref.length + self.overhead_bytes
            first, last = spans.get(ref.contract, (ref.first_seq, ref.end_seq))
            spans[ref.contract] = (min(first, ref.first_seq), max(last, ref.end_seq))
            batches.setdefault(ref.contract, []).extend([data] if data is not None else [])
        stored: dict[str, list[tuple[StoredRef, bytes]]] = {}
        for place, block in enumerate(entry.meta.stored, len(entry.meta.batches)):
            data = self._at(segment, at, block.length, block_id(entry.meta.number, place))
            at += block.length + self.overhead_bytes
            if data is None or zlib.crc32(data) != block.checksum:
                continue
            data = self.unlocked(data, block.key, label_of(block.contract, block.first_seq, stays(block.windowed)))
            if data is not None:
                stored.setdefault(block.contract, []).append((block, data))
        for contract, (first, last) in spans.items():
            yield Replayed(contract, first, last - first, tuple(batches[contract]), tuple(stored.get(contract, ())))

    def _at(self, segment: bytes, offset: int, length: int, number: int) -> bytes | None:
        return self.opened(segment[offset : offset + length + self.overhead_bytes], number)

    def _label(self, number: int) -> bytes:
        return b"%d/%d" % (self._epoch, number)


def stays(windowed: bool) -> str:
    """Return what tells a stored block of a range from the other."""
    return "windowed" if windowed else "stored"
