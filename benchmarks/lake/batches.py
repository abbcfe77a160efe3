"""Micro-batches made beforehand: payloads once, the header's epoch and time for each sending.

Column `seq` is in the payload, so a template is of one range of sequence numbers; origins are not, so all origins of a
contract send the same templates. A stamped batch costs its checksum and one copy.
"""

import struct
import zlib
from typing import Final

import numpy as np
import pyarrow as pa
import zstandard

from benchmarks.lake import workload
from contracts import microbatch
from contracts.contract import SEQ_COLUMN, Contract, fingerprint
from contracts.microbatch import HEADER_BYTES, Header
from contracts.wire import columns
from lakehouse.schema import wire_schema

LEVEL: Final = 3  # of zstd
_EPOCH_AT: Final = 16
_SEALED_AT: Final = 32
_CHECKSUM_AT: Final = HEADER_BYTES - 4


class Template:
    """A batch of rows `[first_seq, first_seq + rows)` of one contract version."""

    __slots__ = ("_head", "_payload", "first_seq", "rows")

    def __init__(self, sealed: bytes, first_seq: int, rows: int) -> None:
        self.first_seq, self.rows = first_seq, rows
        self._head, self._payload = sealed[:_CHECKSUM_AT], sealed[HEADER_BYTES:]

    @property
    def size_bytes(self) -> int:
        """Size of the whole batch."""
        return HEADER_BYTES + len(self._payload)

    def stamped(self, epoch: int, sealed_at_ms: int) -> bytes:
        """Return the batch of an epoch, sealed at a Unix time in ms, with its own checksum."""
        head = bytearray(self._head)
        struct.pack_into("<I", head, _EPOCH_AT, epoch)
        struct.pack_into("<Q", head, _SEALED_AT, sealed_at_ms)
        checksum = zlib.crc32(self._payload, zlib.crc32(head))
        return b"".join((head, struct.pack("<I", checksum), self._payload))


def templates(contract: Contract, batches: int, batch_rows: int, first_seq: int = 0) -> list[Template]:
    """Return batches of codec 1, without a gap between them."""
    seqs = np.arange(first_seq, first_seq + batches * batch_rows, dtype=np.int64)
    batch = _differences(contract, pa.table({SEQ_COLUMN: seqs, **_columns(contract, seqs)}), batch_rows)
    compressor, name = zstandard.ZstdCompressor(level=LEVEL), fingerprint(contract)
    found = []
    for at in range(0, len(seqs), batch_rows):
        raw = batch.slice(at, batch_rows).serialize().to_pybytes()
        header = Header(
            fingerprint=name,
            epoch=0,
            first_seq=first_seq + at,
            span=batch_rows,
            rows=batch_rows,
            raw_bytes=len(raw),
            sealed_at_ms=0,
        )
        found.append(Template(microbatch.seal(header, compressor.compress(raw)), header.first_seq, batch_rows))
    return found


def _columns(contract: Contract, seqs: workload.Numbers) -> dict[str, pa.Array]:
    table = workload.rows(contract, seqs)
    return {name: table.column(name).combine_chunks() for name in table.column_names}


def _differences(contract: Contract, table: pa.Table, batch_rows: int) -> pa.RecordBatch:
    """Take differences within each batch; its first value stays what it is."""
    schema = wire_schema(contract)
    for at, column in enumerate(columns(contract)):
        if column.difference:
            whole = np.asarray(table.column(at)).astype(np.int64)
            changes = np.diff(whole, prepend=np.int64(0))
            changes[::batch_rows] = whole[::batch_rows]
            table = table.set_column(at, column.name, pa.array(changes, schema.field(at).type))
    (batch,) = table.cast(schema).combine_chunks().to_batches()
    return batch
