"""Many micro-batches of one contract version to one table of rows, without a Python step per row. Pure.

The payloads are decompressed, concatenated behind one schema message and read as one IPC stream; difference columns
are restored over all batches at once. When that fails, each batch is read alone, so one broken batch costs its
neighbours time and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard
from msgspec import Struct

from contracts.contract import SEQ_COLUMN, Contract
from contracts.microbatch import Header
from contracts.wire import columns
from lakehouse.errors import PayloadError
from lakehouse.schema import schema_message, wire_schema

END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Dictionaries = Mapping[int, zstandard.ZstdCompressionDict]
Index = npt.NDArray[np.int64]


class Arrived(Struct, frozen=True):
    """A batch as it came from the log. `source` is topic/partition/offset."""

    origin: str
    source: str
    header: Header
    payload: memoryview
    original: bytes


class Decoded(Struct, frozen=True):
    """Rows in payload columns with differences restored; `batch_of_row[i]` indexes `batches`."""

    batches: tuple[Arrived, ...]
    rows: pa.Table
    batch_of_row: Index


class Refused(Struct, frozen=True):
    """A batch that cannot be read, with the reason for its dead letter."""

    batch: Arrived
    reason: str
    detail: str


def decode(
    batches: Sequence[Arrived], contract: Contract, dictionaries: Dictionaries
) -> tuple[Decoded, tuple[Refused, ...]]:
    """Read batches of one contract version, in order. Every batch is either decoded or refused."""
    message = schema_message(contract)
    unpacked, refused = _unpack(batches, dictionaries)
    try:
        table = _read(message, [raw for _, raw in unpacked], [b.header.rows for b, _ in unpacked])
    except PayloadError:
        unpacked, table, broken = _read_singly(message, unpacked)
        refused += broken
    read = tuple(batch for batch, _ in unpacked)
    lengths = np.array([batch.header.rows for batch in read], dtype=np.int64)
    rows = _restore(table if read else wire_schema(contract).empty_table(), contract, lengths)
    decoded = Decoded(read, rows, np.repeat(np.arange(len(read), dtype=np.int64), lengths))
    decoded, out_of_range = _check_seq(decoded)
    return decoded, (*refused, *out_of_range)


def _unpack(
    batches: Sequence[Arrived], dictionaries: Dictionaries
) -> tuple[list[tuple[Arrived, bytes]], list[Refused]]:
    unpacked: list[tuple[Arrived, bytes]] = []
    refused: list[Refused] = []
    readers: dict[int, zstandard.ZstdDecompressor] = {0: zstandard.ZstdDecompressor()}
    for batch in batches:
        try:
            unpacked.append((batch, _decompress(batch, dictionaries, readers)))
        except PayloadError as error:
            refused.append(Refused(batch, error.reason, str(error)))
    return unpacked, refused


def _decompress(batch: Arrived, dictionaries: Dictionaries, readers: dict[int, zstandard.ZstdDecompressor]) -> bytes:
    header = batch.header
    if header.rows == 0:
        return b""
    number = header.dictionary_id
    if number not in readers:
        if number not in dictionaries:
            raise PayloadError("unknown_dictionary", f"{batch.source}: zstd dictionary {number} is not published")
        readers[number] = zstandard.ZstdDecompressor(dict_data=dictionaries[number])
    try:
        # Asked before anything is inflated: the frame's own claim would decide how much memory is taken.
        claimed = zstandard.frame_content_size(batch.payload)
        if claimed not in (-1, header.raw_bytes):
            raise PayloadError(
                "bad_payload", f"{batch.source}: header says {header.raw_bytes} bytes raw, the zstd frame {claimed}"
            )
        raw = readers[number].decompress(batch.payload, max_output_size=header.raw_bytes)
    except zstandard.ZstdError as error:
        raise PayloadError("bad_payload", f"{batch.source}: expected one zstd frame: {error}") from error
    if len(raw) != header.raw_bytes:
        raise PayloadError("bad_payload", f"{batch.source}: header says {header.raw_bytes} bytes raw, got {len(raw)}")
    return raw


def _read(message: bytes, payloads: list[bytes], lengths: list[int]) -> pa.Table:
    try:
        with pa.ipc.open_stream(pa.py_buffer(b"".join((message, *payloads, END_OF_STREAM)))) as stream:
            read = list(stream)
        table = pa.Table.from_batches(read, schema=stream.schema)
        # Offsets and text come from a device; Arrow's kernels trust them, so they are proved here once.
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise PayloadError("bad_payload", f"expected Arrow record batches: {error}") from error
    if [batch.num_rows for batch in read] != [rows for rows in lengths if rows]:
        raise PayloadError("bad_payload", f"headers say {sum(lengths)} rows, the payloads hold {table.num_rows}")
    return table


def _read_singly(
    message: bytes, unpacked: list[tuple[Arrived, bytes]]
) -> tuple[list[tuple[Arrived, bytes]], pa.Table, list[Refused]]:
    sound: list[tuple[Arrived, bytes]] = []
    tables: list[pa.Table] = []
    refused: list[Refused] = []
    for batch, raw in unpacked:
        try:
            tables.append(_read(message, [raw], [batch.header.rows]))
            sound.append((batch, raw))
        except PayloadError as error:
            refused.append(Refused(batch, error.reason, f"{batch.source}: {error}"))
    return sound, pa.concat_tables(tables) if tables else None, refused


def _restore(rows: pa.Table, contract: Contract, lengths: Index) -> pa.Table:
    """Undo the differences: a running sum over everything, less what it was where each batch began."""
    starts = np.cumsum(lengths) - lengths
    rows = rows.combine_chunks()
    for at, column in enumerate(columns(contract)):
        if not column.difference:
            continue
        values = rows.column(at)
        nulls = np.asarray(values.is_null()) if values.null_count else None
        differences = np.asarray(values.fill_null(0)).astype(np.int64)
        with np.errstate(over="ignore"):
            sums = np.cumsum(differences)
            before = np.concatenate((np.zeros(1, dtype=np.int64), sums))[starts]
            restored = (sums - np.repeat(before, lengths)).astype(values.type.to_pandas_dtype())
        rows = rows.set_column(at, column.name, pa.array(restored, values.type, mask=nulls))
    return rows


def _check_seq(decoded: Decoded) -> tuple[Decoded, tuple[Refused, ...]]:
    """Refuse batches whose sequence numbers are null, do not ascend or leave the range of their header."""
    column = decoded.rows.column(SEQ_COLUMN)
    bad = np.asarray(column.is_null())
    seq = np.asarray(column.fill_null(0))
    first = np.array([b.header.first_seq for b in decoded.batches], dtype=np.uint64).astype(np.int64)
    end = first + np.array([b.header.span for b in decoded.batches], dtype=np.int64)
    owner = decoded.batch_of_row
    bad |= (seq < first[owner]) | (seq >= end[owner])
    bad[1:] |= (seq[1:] <= seq[:-1]) & (owner[1:] == owner[:-1])
    if not bad.any():
        return decoded, ()
    broken = set(np.unique(owner[bad]).tolist())
    keep = ~np.isin(owner, list(broken))
    sound = [at for at in range(len(decoded.batches)) if at not in broken]
    renumbered = np.full(len(decoded.batches), -1, dtype=np.int64)
    renumbered[sound] = np.arange(len(sound))
    refused = tuple(
        Refused(
            decoded.batches[at],
            "bad_seq",
            f"{decoded.batches[at].source}: sequence numbers must ascend within the range of the header",
        )
        for at in sorted(broken)
    )
    kept = Decoded(
        tuple(decoded.batches[at] for at in sound), decoded.rows.filter(pa.array(keep)), renumbered[owner[keep]]
    )
    return kept, refused
