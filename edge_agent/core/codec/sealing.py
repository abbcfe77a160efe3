"""Rows of one stream to sealed micro-batches, each within the limits of a batch."""

from array import array

from msgspec import Struct

from contracts import microbatch
from contracts.contract import Contract, fingerprint
from contracts.microbatch import BATCH_BYTES_MAX, HEADER_BYTES, RAW_BYTES_MAX, SPAN_MAX, Header
from edge_agent.core.codec.payload import Payload, PayloadEncoder, Purpose
from edge_agent.core.codec.record_batch import Column, Columns


class SealedBatch(Struct, frozen=True):
    """A micro-batch ready to be spooled; it accounts for [first_seq, first_seq + span) of its contract's stream.

    With a `key` the data are sealed for the person that the rows are of, see `core.consent.person_keys`.
    """

    contract: str
    first_seq: int
    span: int
    rows: int
    data: bytes
    key: int = 0


class Sealer:
    """Seals batches of one contract in one epoch."""

    def __init__(self, contract: Contract, epoch: int, dictionary: bytes = b"") -> None:
        self.contract = contract
        self._epoch = epoch
        self.fingerprint = fingerprint(contract)
        self._encoder = PayloadEncoder(contract, dictionary)

    def seal(
        self,
        first_seq: int,
        end_seq: int,
        seqs: Column,
        columns: Columns,
        sealed_at_ms: int,
        flags: int = 0,
        purpose: Purpose = Purpose.WIRE,
    ) -> list[SealedBatch]:
        """Return batches that together account for [first_seq, end_seq); `seqs` are the numbers of the rows sent.

        Rows that do not fit into one batch are halved until they do.
        """
        payload = self._encoder.encode(seqs, columns, purpose)
        fits = len(payload.data) + HEADER_BYTES <= BATCH_BYTES_MAX and payload.raw_bytes <= RAW_BYTES_MAX
        if len(seqs) > 1 and not fits:
            half = len(seqs) // 2
            middle = int(seqs[half])
            head = {name: column[:half] for name, column in columns.items()}
            tail = {name: column[half:] for name, column in columns.items()}
            return [
                *self.seal(first_seq, middle, seqs[:half], head, sealed_at_ms, flags, purpose),
                *self.seal(middle, end_seq, seqs[half:], tail, sealed_at_ms, flags, purpose),
            ]
        header = Header(
            fingerprint=self.fingerprint,
            epoch=self._epoch,
            first_seq=first_seq,
            span=end_seq - first_seq,
            rows=len(seqs),
            raw_bytes=payload.raw_bytes,
            sealed_at_ms=sealed_at_ms,
            dictionary_id=payload.dictionary_id,
            codec=payload.codec,
            flags=flags,
        )
        data = microbatch.seal(header, payload.data)
        return [SealedBatch(self.contract.id, first_seq, end_seq - first_seq, len(seqs), data)]

    def store(self, seqs: Column, columns: Columns) -> Payload:
        """Return rows packed for the device's own use: quickly, not tightly."""
        return self._encoder.encode(seqs, columns, Purpose.STORE)

    def tombstones(self, first_seq: int, end_seq: int, sealed_at_ms: int) -> list[SealedBatch]:
        """Return batches without rows that account for a range whose events no longer exist."""
        none = array("q")
        empty: dict[str, Column] = {field.name: [] for field in self.contract.fields}
        return [
            batch
            for first in range(first_seq, end_seq, SPAN_MAX)
            for batch in self.seal(first, min(end_seq, first + SPAN_MAX), none, empty, sealed_at_ms)
        ]
