"""Many micro-batches of one contract version to one table of rows, without a Python step per row. Pure.

The payloads are decompressed. Arrow payloads are concatenated behind one schema message and read as one IPC stream;
difference columns are restored over all batches at once. Packed payloads are unpacked together, those of one dictionary
at a time. When that fails, each batch is read alone, so one broken batch costs its neighbours time and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import zstandard
from msgspec import Struct

from contracts import packing
from contracts.contract import SEQ_COLUMN, Contract
from contracts.microbatch import Codec, Header
from contracts.wire import columns
from lakehouse import packed
from lakehouse.errors import PayloadError
from lakehouse.schema import schema_message, wire_schema

END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Dictionaries = Mapping[int, zstandard.ZstdCompressionDict]
Index = npt.NDArray[np.int64]
Readers = dict[tuple[int, bool], zstandard.ZstdDecompressor]
Read = Callable[[list[bytes], list[int]], pa.Table]


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
    unpacked, refused = _unpack(batches, dictionaries)
    parts: list[pa.Table] = []
    places: list[int] = []
    for kind, entries in _kinds(unpacked).items():
        table, sound, broken = _read_kind(_reader(kind, contract, dictionaries), [unpacked[at] for at in entries])
        parts += [] if table is None else [table]
        places += [entries[at] for at in sound]
        refused += broken
    rows = pa.concat_tables(parts) if parts else wire_schema(contract).empty_table()
    if len(parts) > 1:
        lengths = [unpacked[at][0].header.rows for at in places]
        rows = rows.take(pa.array(np.argsort(np.repeat(places, lengths), kind="stable")))
    read = tuple(unpacked[at][0] for at in sorted(places))
    owner = np.repeat(np.arange(len(read), dtype=np.int64), [batch.header.rows for batch in read])
    decoded, out_of_range = _check_seq(Decoded(read, rows.combine_chunks(), owner))
    return decoded, (*refused, *out_of_range)


def _kinds(unpacked: list[tuple[Arrived, bytes]]) -> dict[tuple[int, int], list[int]]:
    """Return which batches can be read together: by codec, packed ones by dictionary too."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for at, (batch, _) in enumerate(unpacked):
        header = batch.header
        packed_rows = header.codec == Codec.PACKED_ZSTD and header.rows > 0
        kind = (header.codec, header.dictionary_id) if packed_rows else (Codec.ARROW_ZSTD, 0)
        kinds.setdefault((int(kind[0]), kind[1]), []).append(at)
    return kinds


def _reader(kind: tuple[int, int], contract: Contract, dictionaries: Dictionaries) -> Read:
    codec, number = kind
    if codec == Codec.PACKED_ZSTD:
        dictionary = dictionaries[number].as_bytes() if number else b""
        return lambda raws, rows: packed.read(raws, rows, contract, dictionary)
    message = schema_message(contract)
    return lambda raws, rows: _restore(_read(message, raws, rows), contract, np.array(rows, dtype=np.int64))


def _read_kind(read: Read, unpacked: list[tuple[Arrived, bytes]]) -> tuple[pa.Table | None, list[int], list[Refused]]:
    """Return the rows, which of the batches they are of, and the batches that cannot be read."""
    try:
        table = read([raw for _, raw in unpacked], [batch.header.rows for batch, _ in unpacked])
    except PayloadError:
        return _read_singly(read, unpacked)
    return table, list(range(len(unpacked))), []


def _unpack(
    batches: Sequence[Arrived], dictionaries: Dictionaries
) -> tuple[list[tuple[Arrived, bytes]], list[Refused]]:
    unpacked: list[tuple[Arrived, bytes]] = []
    refused: list[Refused] = []
    readers: Readers = {}
    for batch in batches:
        try:
            unpacked.append((batch, _decompress(batch, dictionaries, readers)))
        except PayloadError as error:
            refused.append(Refused(batch, error.reason, str(error)))
    return unpacked, refused


def _decompress(batch: Arrived, dictionaries: Dictionaries, readers: Readers) -> bytes:
    header = batch.header
    if header.rows == 0:
        return b""
    number, magicless = header.dictionary_id, header.codec == Codec.PACKED_ZSTD
    if number and number not in dictionaries:
        raise PayloadError("unknown_dictionary", f"{batch.source}: zstd dictionary {number} is not published")
    if (number, magicless) not in readers:
        form = zstandard.FORMAT_ZSTD1_MAGICLESS if magicless else zstandard.FORMAT_ZSTD1
        readers[number, magicless] = zstandard.ZstdDecompressor(dict_data=dictionaries.get(number), format=form)
    try:
        # Asked before anything is inflated: the frame's own claim would decide how much memory is taken.
        head = bytes(batch.payload[: packing.FRAME_HEADER_BYTES_MAX + len(packing.ZSTD_MAGIC)])
        claimed = zstandard.frame_content_size(packing.ZSTD_MAGIC + head if magicless else head)
        if claimed not in (-1, header.raw_bytes):
            raise PayloadError(
                "bad_payload", f"{batch.source}: header says {header.raw_bytes} bytes raw, the zstd frame {claimed}"
            )
        raw = readers[number, magicless].decompress(
            batch.payload, max_output_size=max(1, header.raw_bytes), allow_extra_data=False
        )
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


def _read_singly(read: Read, unpacked: list[tuple[Arrived, bytes]]) -> tuple[pa.Table | None, list[int], list[Refused]]:
    sound: list[int] = []
    tables: list[pa.Table] = []
    refused: list[Refused] = []
    for at, (batch, raw) in enumerate(unpacked):
        try:
            tables.append(read([raw], [batch.header.rows]))
            sound.append(at)
        except PayloadError as error:
            refused.append(Refused(batch, error.reason, f"{batch.source}: {error}"))
    return pa.concat_tables(tables) if tables else None, sound, refused


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
