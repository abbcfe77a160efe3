"""Rows of one stream to sealed micro-batches, each within the limits of a batch."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from contracts import microbatch
from contracts.contract import Contract, fingerprint
from contracts.errors import BatchError
from contracts.microbatch import BATCH_BYTES_MAX, HEADER_BYTES, RAW_BYTES_MAX, SPAN_MAX, Header
from edge_agent.core.conditions import Mask
from edge_agent.core.events import Column, Events, Seqs
from edge_agent.core.payload import Payload, PayloadDecoder, PayloadEncoder, Purpose, Rows
from edge_agent.core.replay import Replayed

_log = logging.getLogger(__name__)


class SealedBatch(Struct, frozen=True):
    """A micro-batch ready to be spooled; it accounts for [first_seq, first_seq + span) of its contract's stream."""

    contract: str
    first_seq: int
    span: int
    rows: int
    data: bytes


class Sealer:
    """Seals batches of one contract in one epoch."""

    def __init__(self, contract: Contract, epoch: int, dictionary: bytes = b"") -> None:
        self.contract = contract
        self._epoch = epoch
        self._fingerprint = fingerprint(contract)
        self._encoder = PayloadEncoder(contract, dictionary)
        self._decoder = PayloadDecoder(contract, dictionary)

    def seal(
        self, first_seq: int, end_seq: int, seqs: Seqs, columns: Mapping[str, Column], sealed_at_ms: int
    ) -> list[SealedBatch]:
        """Return batches that together account for [first_seq, end_seq); `seqs` are the numbers of the rows sent.

        Rows that do not fit into one batch are halved until they do.
        """
        payload = self._encoder.encode(seqs, columns)
        fits = len(payload.data) + HEADER_BYTES <= BATCH_BYTES_MAX and payload.raw_bytes <= RAW_BYTES_MAX
        if len(seqs) > 1 and not fits:
            half = len(seqs) // 2
            middle = int(seqs[half])
            head = {name: column[:half] for name, column in columns.items()}
            tail = {name: column[half:] for name, column in columns.items()}
            return [
                *self.seal(first_seq, middle, seqs[:half], head, sealed_at_ms),
                *self.seal(middle, end_seq, seqs[half:], tail, sealed_at_ms),
            ]
        header = Header(
            fingerprint=self._fingerprint,
            epoch=self._epoch,
            first_seq=first_seq,
            span=end_seq - first_seq,
            rows=len(seqs),
            raw_bytes=payload.raw_bytes,
            sealed_at_ms=sealed_at_ms,
            dictionary_id=self._encoder.dictionary_id,
        )
        data = microbatch.seal(header, payload.data)
        return [SealedBatch(self.contract.id, first_seq, end_seq - first_seq, len(seqs), data)]

    def store(self, seqs: Seqs, columns: Mapping[str, Column]) -> Payload:
        """Return rows packed for the device's own use: quickly, not tightly."""
        return self._encoder.encode(seqs, columns, Purpose.STORE)

    def events(self, replayed: Replayed) -> tuple[Events, Mask, Mask]:
        """Return events of the spool in their order, without their lines; which of them travelled; which windows count.

        What has rotted is left out. Raises nothing for bad bytes.
        """
        parts: list[_Part] = []
        for batch in replayed.batches:
            try:
                header, payload = microbatch.parse(batch)
                rows = self._decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
                continue
            parts.append(_Part(rows, True, True))
        for ref, block in replayed.stored:
            try:
                parts.append(_Part(self._decoder.decode(block, ref.rows, ref.raw_bytes), False, ref.windowed))
            except BatchError as error:
                _log.error("%s %d in the spool: %s", self.contract.id, replayed.first_seq, error)
        return _merged(self.contract, [part for part in parts if len(part.rows.seqs)])

    def tombstones(self, first_seq: int, end_seq: int, sealed_at_ms: int) -> list[SealedBatch]:
        """Return batches without rows that account for a range whose events no longer exist."""
        none = np.zeros(0, dtype=np.int64)
        empty: dict[str, Column] = {field.name: [] for field in self.contract.fields}
        return [
            batch
            for first in range(first_seq, end_seq, SPAN_MAX)
            for batch in self.seal(first, min(end_seq, first + SPAN_MAX), none, empty, sealed_at_ms)
        ]


class _Part(NamedTuple):
    rows: Rows
    kept: bool
    windowed: bool


def _merged(contract: Contract, parts: list[_Part]) -> tuple[Events, Mask, Mask]:
    """Return rows in the order of their numbers, and which of them are of parts with each mark."""
    if not parts:
        none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return Events(none, {field.name: [] for field in contract.fields}, [], []), nothing, nothing
    seqs = np.concatenate([np.asarray(part.rows.seqs, dtype=np.int64) for part in parts])
    lengths = [len(part.rows.seqs) for part in parts]
    order = np.argsort(seqs, kind="stable")
    places = order.tolist()
    columns: dict[str, Column] = {}
    for field in contract.fields:
        found = [part.rows.columns[field.name] for part in parts]
        if all(isinstance(column, np.ndarray) for column in found):
            columns[field.name] = np.concatenate(found)[order]
        else:
            listed = [value for column in found for value in column]
            columns[field.name] = [listed[place] for place in places]
    kept = np.repeat(np.array([part.kept for part in parts]), lengths)[order]
    windowed = np.repeat(np.array([part.windowed for part in parts]), lengths)[order]
    return Events(seqs[order], columns, [], []), kept, windowed
