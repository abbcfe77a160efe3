"""Rows of one person on their way into a record: sealed with that person's key before anything else sees them."""

import zlib
from typing import Final

from msgspec.structs import replace

from edge_agent.core.codec.sealing import SealedBatch
from edge_agent.core.consent.person_keys import PersonKeys, label_of
from edge_agent.core.spool.blocks import TRAVELS, stays
from edge_agent.core.spool.record import StoredRef

DAY_US: Final = 86_400_000_000  # us; what metadata in the clear may say of when a person acted


class Personal:
    """Seals what is of somebody; what is of nobody, with key 0, stays as it is."""

    def __init__(self, persons: PersonKeys | None) -> None:
        self._persons = persons
        self.overhead_bytes = persons.overhead_bytes if persons is not None else 0

    def batch(self, key: int, batch: SealedBatch) -> SealedBatch:
        """Return a batch that travels."""
        if not key or self._persons is None:
            return batch
        label = label_of(batch.contract, batch.first_seq, TRAVELS)
        return replace(batch, data=self._persons.seal(key, batch.data, label), key=key)

    def stored(self, key: int, ref: StoredRef, data: bytes) -> tuple[StoredRef, bytes]:
        """Return a block that stays; its checksum is of what is sealed, and tells nothing of the rows."""
        if not key or self._persons is None:
            return ref, data
        sealed = self._persons.seal(key, data, label_of(ref.contract, ref.first_seq, stays(ref.windowed)))
        return replace(ref, length=len(sealed), checksum=zlib.crc32(sealed), key=key), sealed

    def wire_bytes(self, batch: SealedBatch) -> int:
        """Return the size of a batch as it travels, when the person's key is off it again."""
        return len(batch.data) - (self.overhead_bytes if batch.key else 0)


def whole_days(times_us: tuple[int, int]) -> tuple[int, int]:
    """Return the days, UTC, that hold a span of time."""
    first, last = times_us
    return first - first % DAY_US, last - last % DAY_US + DAY_US - 1
