"""Many micro-batches of one contract as one Arrow table.

Payloads are record batch messages without their schema message, so all payloads of a contract behind one schema message
are an IPC stream: one read, whatever their number.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import zstandard
from msgspec import Struct
from numpy.typing import NDArray

from contracts import wire
from contracts.contract import Contract, FieldType
from contracts.errors import BatchFormatError
from contracts.microbatch import Header

ARROW_TYPES: Final = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
}


class Batch(Struct, frozen=True):
    """A micro-batch with the origin that its topic names; `payload` is still compressed."""

    origin: str
    header: Header
    payload: bytes


class Decoded(Struct, frozen=True):
    """Rows of many batches. `batch_of` [rows] int64 is each row's index in `batches`."""

    contract: Contract
    batches: tuple[Batch, ...]
    table: pa.Table
    batch_of: NDArray[np.int64]


class Decoder:
    """Decodes batches of one contract version with its dictionaries; keeps what is costly to make."""

    def __init__(self, contract: Contract, dictionaries: Mapping[int, bytes]) -> None:
        self.contract = contract
        self._columns = wire.columns(contract)
        self._schema = pa.schema([pa.field(c.name, ARROW_TYPES[c.type], not c.required) for c in self._columns])
        self._schema_message: Final = self._schema.serialize().to_pybytes()
        self._dictionaries = dictionaries
        self._decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def decode(self, batches: Sequence[Batch]) -> Decoded:
        """Return the rows of all batches, differences restored. Raises BatchFormatError when one cannot be read."""
        payloads = [self._decompressed(batch) for batch in batches]
        try:
            with pa.ipc.open_stream(pa.py_buffer(b"".join([self._schema_message, *payloads]))) as reader:
                found = list(reader)
            for record_batch in found:
                record_batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            raise BatchFormatError(f"payload of contract {self.contract.id}: {error}") from error
        counts, expected = [record_batch.num_rows for record_batch in found], [b.header.rows for b in batches]
        if counts != expected:
            raise BatchFormatError(f"payload of contract {self.contract.id}: expected {expected} rows, found {counts}")
        table = pa.Table.from_batches(found, self._schema).combine_chunks()
        return Decoded(self.contract, tuple(batches), self._restored(table, counts), _batch_of(counts))

    def _decompressed(self, batch: Batch) -> bytes:
        header = batch.header
        try:
            if zstandard.frame_content_size(batch.payload) not in (-1, header.raw_bytes):
                raise BatchFormatError(f"batch at seq {header.first_seq}: its frame is not of {header.raw_bytes} bytes")
            raw = self._decompressor(header.dictionary_id).decompress(batch.payload, max_output_size=header.raw_bytes)
        except zstandard.ZstdError as error:
            raise BatchFormatError(f"batch at seq {header.first_seq}: {error}") from error
        if len(raw) != header.raw_bytes:
            raise BatchFormatError(
                f"batch at seq {header.first_seq}: expected {header.raw_bytes} bytes, found {len(raw)}"
            )
        return raw

    def _decompressor(self, dictionary_id: int) -> zstandard.ZstdDecompressor:
        if dictionary_id not in self._decompressors:
            if dictionary_id and dictionary_id not in self._dictionaries:
                raise BatchFormatError(f"dictionary {dictionary_id} has not been published")
            known = zstandard.ZstdCompressionDict(self._dictionaries[dictionary_id]) if dictionary_id else None
            self._decompressors[dictionary_id] = zstandard.ZstdDecompressor(dict_data=known)
        return self._decompressors[dictionary_id]

    def _restored(self, table: pa.Table, counts: Sequence[int]) -> pa.Table:
        for index, column in enumerate(self._columns):
            if column.difference:
                values = table.column(index).to_numpy()
                restored = pa.array(_running_sums(values, counts), ARROW_TYPES[column.type])
                table = table.set_column(index, self._schema.field(index), restored)
        return table


def _running_sums(values: NDArray[np.int64], counts: Sequence[int]) -> NDArray[np.int64]:
    """Return sums that start afresh at each batch; wrap-around of the long sum cancels in the subtraction."""
    with np.errstate(over="ignore"):
        sums = np.cumsum(values, dtype=values.dtype)
        ends = np.cumsum(counts)
        before = np.concatenate([np.zeros(1, sums.dtype), sums])[ends - counts]
        restored: NDArray[np.int64] = sums - np.repeat(before, counts)
    return restored


def _batch_of(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)
