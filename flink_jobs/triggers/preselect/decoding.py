"""Many micro-batches of one contract as one Arrow table.

Arrow payloads are record batch messages without their schema message, so all of a contract behind one schema message
are an IPC stream: one read, whatever their number. Packed payloads are unpacked together, those of one dictionary at a
time.
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
from contracts.errors import BatchFormatError, ContractError
from contracts.microbatch import Codec, Header
from contracts.packing import FRAME_HEADER_BYTES_MAX, ZSTD_MAGIC, Plan, plan_of
from contracts.unpacking import Numbers, Texts, unpack

ARROW_TYPES: Final = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
}
TEXT_BYTES_MAX: Final = 2**31 - 1  # of one column; Arrow's utf8 has 32-bit offsets


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
        self._decompressors: dict[tuple[int, bool], zstandard.ZstdDecompressor] = {}
        self._plans: dict[int, Plan] = {}

    def decode(self, batches: Sequence[Batch]) -> Decoded:
        """Return the rows of all batches, differences restored. Raises BatchFormatError when one cannot be read."""
        kinds: dict[int | None, list[int]] = {}
        for at, batch in enumerate(batches):
            packed = batch.header.codec == Codec.PACKED_ZSTD and batch.header.rows > 0
            kinds.setdefault(batch.header.dictionary_id if packed else None, []).append(at)
        parts = [self._read(number, [batches[at] for at in places]) for number, places in kinds.items()]
        table = pa.concat_tables(parts or [self._schema.empty_table()]).combine_chunks()
        counts = [batch.header.rows for batch in batches]
        if len(parts) > 1:
            order = [at for places in kinds.values() for at in places]
            table = table.take(pa.array(np.argsort(np.repeat(order, [counts[at] for at in order]), kind="stable")))
        return Decoded(self.contract, tuple(batches), table, _batch_of(counts))

    def _read(self, packed_with: int | None, batches: Sequence[Batch]) -> pa.Table:
        """Read batches of one kind: Arrow for None, packed with that dictionary otherwise."""
        payloads = [self._decompressed(batch) for batch in batches]
        counts = [batch.header.rows for batch in batches]
        try:
            if packed_with is None:
                return self._arrow(payloads, counts)
            found = unpack(payloads, counts, self._plan(packed_with), self.contract)
            return pa.table([_array(found[field.name], field.type) for field in self._schema], schema=self._schema)
        except (pa.ArrowException, OSError, ContractError) as error:
            raise BatchFormatError(f"payload of contract {self.contract.id}: {error}") from error

    def _arrow(self, payloads: list[bytes], counts: list[int]) -> pa.Table:
        with pa.ipc.open_stream(pa.py_buffer(b"".join([self._schema_message, *payloads]))) as reader:
            found = list(reader)
        for record_batch in found:
            record_batch.validate(full=True)
        rows = [record_batch.num_rows for record_batch in found]
        if [count for count in rows if count] != [count for count in counts if count]:
            raise BatchFormatError(f"payload of contract {self.contract.id}: expected {counts} rows, found {rows}")
        return self._restored(pa.Table.from_batches(found, self._schema).combine_chunks(), counts)

    def _plan(self, dictionary_id: int) -> Plan:
        if dictionary_id not in self._plans:
            dictionary = self._dictionaries[dictionary_id] if dictionary_id else b""
            self._plans[dictionary_id] = plan_of(self.contract, dictionary)
        return self._plans[dictionary_id]

    def _decompressed(self, batch: Batch) -> bytes:
        header = batch.header
        packed = header.codec == Codec.PACKED_ZSTD
        if packed and not header.rows:
            return b""
        try:
            head = ZSTD_MAGIC + batch.payload[:FRAME_HEADER_BYTES_MAX] if packed else batch.payload
            if zstandard.frame_content_size(head) not in (-1, header.raw_bytes):
                raise BatchFormatError(f"batch at seq {header.first_seq}: its frame is not of {header.raw_bytes} bytes")
            raw = self._decompressor(header.dictionary_id, packed).decompress(
                batch.payload, max_output_size=max(1, header.raw_bytes), allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise BatchFormatError(f"batch at seq {header.first_seq}: {error}") from error
        if len(raw) != header.raw_bytes:
            raise BatchFormatError(
                f"batch at seq {header.first_seq}: expected {header.raw_bytes} bytes, found {len(raw)}"
            )
        return raw

    def _decompressor(self, dictionary_id: int, packed: bool) -> zstandard.ZstdDecompressor:
        if (dictionary_id, packed) not in self._decompressors:
            if dictionary_id and dictionary_id not in self._dictionaries:
                raise BatchFormatError(f"dictionary {dictionary_id} has not been published")
            known = zstandard.ZstdCompressionDict(self._dictionaries[dictionary_id]) if dictionary_id else None
            form = zstandard.FORMAT_ZSTD1_MAGICLESS if packed else zstandard.FORMAT_ZSTD1
            self._decompressors[dictionary_id, packed] = zstandard.ZstdDecompressor(dict_data=known, format=form)
        return self._decompressors[dictionary_id, packed]

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


def _array(column: Numbers | Texts, kind: pa.DataType) -> pa.Array:
    if isinstance(column, Numbers):
        return pa.array(column.values, kind, mask=None if column.valid is None else ~column.valid)
    if len(column.data) > TEXT_BYTES_MAX:
        raise BatchFormatError(f"{len(column.data)} bytes of text in one column, at most {TEXT_BYTES_MAX}")
    offsets = pa.py_buffer(column.offsets.astype(np.int32))
    texts = pa.StringArray.from_buffers(len(column.offsets) - 1, offsets, pa.py_buffer(column.data))
    texts.validate(full=True)
    return texts.take(pa.array(column.index, mask=column.index < 0))


def _batch_of(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)
