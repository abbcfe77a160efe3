"""The metadata of an Arrow record batch message: written from a fixed layout, read from any that is valid.

Sources: Apache Arrow columnar format, "Encapsulated message format"; `Message.fbs`; FlatBuffers internals. A message is

    ffffffff | metadata size, 4 bytes | metadata, padded to 8 | body

The metadata is a FlatBuffer: `Message` (version V5, header type 3, bodyLength) around `RecordBatch` (length, a node of
16 bytes per column: rows and nulls, 16 bytes per buffer: offset and length in the body). Both tables always stand in
the same places here, so writing is packing them.
"""

import struct
from typing import Final

from msgspec import Struct

from contracts.errors import BatchFormatError

CONTINUATION: Final = b"\xff\xff\xff\xff"
PREFIX_BYTES: Final = 8
RECORD_BATCH: Final = 3
VERSION_V4: Final = 3  # what V5 changed does not touch record batches of flat types
VERSION_V5: Final = 4
ENTRIES_MAX: Final = 2_048  # nodes or buffers; 501 columns with three buffers each are the most a contract can have
METADATA_BYTES_MAX: Final = 131_072  # bytes; twice what ENTRIES_MAX take

# root | Message: vtable, table | RecordBatch: vtable, padding, table up to its two vectors. All offsets are relative to
# where they stand; a vtable is its size, its table's size, and where in the table each field lies.
_FIXED: Final = struct.Struct("<I HHHHHH iIqhBx HHHHH xx iIqI")
_MESSAGE_FIELDS: Final = (12, 20, 16, 18, 4, 8)
_BATCH_FIELDS: Final = (10, 20, 8, 4, 16)
_MESSAGE_AT: Final = 16
_BATCH_AT: Final = 48
_NODES_AT: Final = 68


class Extent(Struct, frozen=True, gc=False):
    """A buffer in the body."""

    offset: int
    size_bytes: int


class Metadata(Struct, frozen=True):
    """`nulls` per column, `buffers` in the order of the body; the body begins at `body_at` of the message."""

    rows: int
    nulls: tuple[int, ...]
    buffers: tuple[Extent, ...]
    body_at: int
    body_bytes: int


def write(rows: int, nulls: list[int], sizes_bytes: list[int]) -> bytes:
    """Return everything of a message before its body, whose buffers lie one after the other, each padded to 8."""
    entries: list[int] = []
    offset = 0
    for size in sizes_bytes:
        entries += (offset, size)
        offset += size + -size % 8
    fixed = _FIXED.pack(
        _MESSAGE_AT, *_MESSAGE_FIELDS, 12, _BATCH_AT - _MESSAGE_AT - 4, offset, VERSION_V5, RECORD_BATCH,
        *_BATCH_FIELDS, 12, _NODES_AT - _BATCH_AT - 4, rows, 12 + 16 * len(nulls),
    )  # fmt: skip
    nodes = [value for count in nulls for value in (rows, count)]
    vectors = struct.pack(f"<I{len(nodes)}q4xI{len(entries)}q", len(nulls), *nodes, len(sizes_bytes), *entries)
    metadata = fixed + vectors
    return CONTINUATION + len(metadata).to_bytes(4, "little") + metadata


def read(message: memoryview) -> Metadata:
    """Return what a message says. Raises BatchFormatError unless it is one uncompressed record batch and no more."""
    try:
        return _read(message)
    except (struct.error, ValueError) as error:
        raise BatchFormatError(f"record batch: its metadata leads out of its {len(message)} bytes: {error}") from error


def _read(message: memoryview) -> Metadata:
    marker, size = struct.unpack_from("<4si", message)
    if marker != CONTINUATION or not 0 < size <= min(METADATA_BYTES_MAX, len(message) - PREFIX_BYTES):
        raise BatchFormatError(f"record batch: expected a message of {len(message)} bytes, found {marker!r}, {size}")
    data = message[PREFIX_BYTES : PREFIX_BYTES + size]
    root = _follow(data, 0)
    version, kind = _scalar(data, root, 0, "<h"), _scalar(data, root, 1, "<B")
    if kind != RECORD_BATCH or version not in (VERSION_V4, VERSION_V5):
        raise BatchFormatError(f"record batch: expected header type 3 in version 3 or 4, found {kind} in {version}")
    body_at, body_bytes = PREFIX_BYTES + size, _scalar(data, root, 3, "<q")
    if body_bytes != len(message) - body_at:
        raise BatchFormatError(f"record batch: expected a body of {body_bytes} bytes, found {len(message) - body_at}")
    batch = _follow(data, _field(data, root, 2))
    if _slot(data, batch, 3):
        raise BatchFormatError("record batch: expected buffers without compression of their own")
    rows = _scalar(data, batch, 0, "<q")
    nodes, buffers = _pairs(data, _field(data, batch, 1)), _pairs(data, _field(data, batch, 2))
    if any(length != rows or not 0 <= nulls <= rows for length, nulls in nodes):
        raise BatchFormatError(f"record batch: expected every column to have {rows} rows, found {nodes[:9]}")
    if any(offset < 0 or length < 0 or offset + length > body_bytes for offset, length in buffers):
        raise BatchFormatError(f"record batch: expected buffers within {body_bytes} bytes, found {buffers[:9]}")
    extents = tuple(Extent(offset, length) for offset, length in buffers)
    return Metadata(rows, tuple(nulls for _, nulls in nodes), extents, body_at, body_bytes)


def _follow(data: memoryview, at: int) -> int:
    """Return the place that the offset at `at` refers to."""
    place = at + int(struct.unpack_from("<I", data, at)[0])
    if place >= len(data):
        raise ValueError(f"offset at {at} leads to {place}")
    return place


def _slot(data: memoryview, table: int, number: int) -> int:
    """Return where in its table a field lies, 0 when it is absent."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise ValueError(f"vtable at {vtable}")
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    return int(struct.unpack_from("<H", data, vtable + entry)[0]) if entry + 2 <= size else 0


def _field(data: memoryview, table: int, number: int) -> int:
    if not (slot := _slot(data, table, number)):
        raise ValueError(f"field {number} is missing")
    return table + slot


def _scalar(data: memoryview, table: int, number: int, kind: str) -> int:
    slot = _slot(data, table, number)
    return int(struct.unpack_from(kind, data, table + slot)[0]) if slot else 0


def _pairs(data: memoryview, at: int) -> list[tuple[int, int]]:
    """Return a vector of structs of two 64-bit integers."""
    place = _follow(data, at)
    (count,) = struct.unpack_from("<I", data, place)
    if count > ENTRIES_MAX:
        raise ValueError(f"{count} entries, at most {ENTRIES_MAX}")
    flat = struct.unpack_from(f"<{2 * count}q", data, place + 4)
    return list(zip(flat[::2], flat[1::2], strict=True))
