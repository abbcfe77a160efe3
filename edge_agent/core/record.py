"""The spool's files: segments of framed records, and the cursor beside them.

A segment is a header followed by frames. Little-endian:

| segment header | bytes | | frame     | bytes | meaning                                          |
| -------------- | ----- |-| --------- | ----- | -------------------------------------------------- |
| magic `FLSP`   | 4     | | magic     | 4     | `FLRC`                                             |
| version 1      | 4     | | meta size | 4     |                                                    |
| epoch          | 4     | | body size | 4     |                                                    |
| CRC-32 of it   | 4     | | checksum  | 4     | CRC-32 of both sizes, the metadata and the body    |
|                |       | | metadata  |       | MessagePack of `Meta`                              |
|                |       | | body      |       | the record's sealed micro-batches, one after other |

A segment's index has the same form; its frames have no bodies. It is written after the segment, so a frame that the
index knows was durable once: if its bytes are bad now, they rotted, and were not merely cut off by a crash.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Explained, Wire
from edge_agent.core.windows import WindowMark

SEGMENT_MAGIC: Final = b"FLSP"
FRAME_MAGIC: Final = b"FLRC"
VERSION: Final = 1
RECORD_BYTES_MAX: Final = 16_777_216  # bytes; one flush is 4,000 events of at most 64 KiB, packed: a size beyond is rot

_SEGMENT: Final = struct.Struct("<4sIII")
_FRAME: Final = struct.Struct("<4sIII")
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
FRAME_HEADER_BYTES: Final = _FRAME.size


class BatchRef(Struct, frozen=True, array_like=True):
    """One batch in a record's body; batches lie there in the order of their refs."""

    contract: str
    first_seq: int
    span: int
    rows: int
    length: int


class Settled(Struct, frozen=True, array_like=True):
    """A range that an earlier record accounted for, that rotted there, and that the lake turned out to hold."""

    contract: str
    first_seq: int
    end_seq: int


class Meta(Struct, frozen=True, array_like=True):
    """What a record says about itself, and what a restart needs. `counts` and `wire` are of this record alone.

    `next_seq` is, per stream, the first number that neither this record nor one before it accounts for. `owed` are the
    ledger entries of this record and of those before it that no ledger batch holds yet; `explained` are the entries in
    this record's ledger batch. A spool that was written before there were `owed` entries has none.
    """

    number: int
    next_seq: dict[str, int]
    open_windows: tuple[WindowMark, ...]
    batches: tuple[BatchRef, ...] = ()
    counts: tuple[Count, ...] = ()
    wire: Wire = Wire()
    settled: tuple[Settled, ...] = ()
    owed: Explained = Explained()
    explained: tuple[Explained, ...] = ()


class Frame(Struct, frozen=True):
    """A whole frame at `offset`, its body at `body_offset`."""

    offset: int
    end: int
    body_offset: int
    meta: Meta


class Scan(Struct, frozen=True):
    """What a segment holds. `good_end` is where its last whole frame ends; `bad`: some bytes before it are no frame."""

    frames: tuple[Frame, ...]
    good_end: int
    bad: bool


class Cursor(Struct, frozen=True):
    """What deleted segments amounted to, and the newest metadata at that time."""

    newest: Meta
    freed: dict[str, RangeSet]
    counts: tuple[Count, ...]
    wire: Wire
    deleted: tuple[int, ...] = ()  # segments that the newest deletion was about


def segment_header(epoch: int) -> bytes:
    """Return the first bytes of a segment."""
    head = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, epoch, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def frame(meta: Meta, body: bytes) -> bytes:
    """Return one frame."""
    packed = msgspec.msgpack.encode(meta)
    sizes = struct.pack("<II", len(packed), len(body))
    checksum = zlib.crc32(body, zlib.crc32(packed, zlib.crc32(sizes)))
    return FRAME_MAGIC + sizes + struct.pack("<I", checksum) + packed + body


def scan(data: bytes) -> Scan:
    """Find every whole frame of a segment; bytes that are not one are stepped over to the next that is."""
    frames: list[Frame] = []
    bad = False
    good_end = min(len(data), SEGMENT_HEADER_BYTES)
    at = good_end
    for found in _candidates(data, at):
        if found < good_end:
            continue
        whole = _frame_at(data, found)
        if whole is not None:
            bad = bad or found != good_end
            frames.append(whole)
            good_end = whole.end
    return Scan(tuple(frames), good_end, bad)


def encode_cursor(cursor: Cursor) -> bytes:
    """Return the JSON form, which carries its own checksum."""
    state = msgspec.json.encode(cursor)
    return msgspec.json.encode({"crc32": zlib.crc32(state), "state": msgspec.Raw(state)})


def decode_cursor(data: bytes) -> Cursor | None:
    """Parse a cursor; None when the bytes are not one or have rotted."""
    try:
        outer = msgspec.json.decode(data, type=_Checked)
        if zlib.crc32(bytes(outer.state)) != outer.crc32:
            return None
        return msgspec.json.decode(outer.state, type=Cursor)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Checked(Struct, frozen=True):
    crc32: int
    state: msgspec.Raw


def _candidates(data: bytes, at: int) -> Iterator[int]:
    while (at := data.find(FRAME_MAGIC, at)) >= 0:
        yield at
        at += 1


def _frame_at(data: bytes, at: int) -> Frame | None:
    if len(data) - at < FRAME_HEADER_BYTES:
        return None
    _, meta_bytes, body_bytes, checksum = _FRAME.unpack_from(data, at)
    body_offset = at + FRAME_HEADER_BYTES + meta_bytes
    end = body_offset + body_bytes
    if meta_bytes + body_bytes > RECORD_BYTES_MAX or end > len(data):
        return None
    view = memoryview(data)
    if zlib.crc32(view[at + FRAME_HEADER_BYTES : end], zlib.crc32(view[at + 4 : at + 12])) != checksum:
        return None
    try:
        meta = msgspec.msgpack.decode(view[at + FRAME_HEADER_BYTES : body_offset], type=Meta)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Frame(at, end, body_offset, meta)
