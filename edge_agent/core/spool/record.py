"""The spool's files: segments of framed records, their indexes, and the cursor beside them.

A segment is a header followed by frames. Little-endian:

| segment header | bytes | | frame     | bytes | meaning                                            |
| -------------- | ----- |-| --------- | ----- | -------------------------------------------------- |
| magic `FLSP`   | 4     | | magic     | 4     | `FLRC`                                             |
| version 2      | 4     | | meta size | 4     |                                                    |
| epoch          | 4     | | body size | 4     |                                                    |
| CRC-32 of it   | 4     | | checksum  | 4     | CRC-32 of both sizes, the metadata and the body    |
|                |       | | metadata  |       | MessagePack of `Meta`                              |
|                |       | | body      |       | the record's blocks, one after other               |

A segment's index has the same form; its frames hold `Indexed` and have no bodies. A frame is written there after the
one in the segment was durable: if the segment's bytes are bad now, they rotted, and were not merely cut off by a crash.
A segment that takes no more records ends its index with one frame of `Summary`, then the frame's size in 4 bytes and
`FLSE`: who opens the spool reads the ends of the indexes and none of the records.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count, Explained, Wire
from edge_agent.core.pulls.progress import PullState
from edge_agent.core.sources.producers import Producers
from edge_agent.core.windows.marks import WindowMark

SEGMENT_MAGIC: Final = b"FLSP"
FRAME_MAGIC: Final = b"FLRC"
SUMMARY_END: Final = b"FLSE"
VERSION: Final = 2
RECORD_BYTES_MAX: Final = 16_777_216  # bytes; one flush is 4,000 events of at most 64 KiB, packed: a size beyond is rot

_SEGMENT: Final = struct.Struct("<4sIII")
_FRAME: Final = struct.Struct("<4sIII")
_SUMMARY_END: Final = struct.Struct("<I4s")
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size
FRAME_HEADER_BYTES: Final = _FRAME.size
SUMMARY_END_BYTES: Final = _SUMMARY_END.size

_Framed = TypeVar("_Framed")


class BatchRef(Struct, frozen=True, array_like=True):
    """One batch in a record's body; batches lie there in the order of their refs.

    `key` numbers the key of the person that its rows are of, see `core.consent.person_keys`; 0: of nobody.
    """

    contract: str
    first_seq: int
    span: int
    rows: int
    length: int
    key: int = 0

    @property
    def end_seq(self) -> int:
        """First sequence number after the batch."""
        return self.first_seq + self.span


class StoredRef(Struct, frozen=True, array_like=True):
    """Events of a stream in a record's body that do not travel; these blocks follow its batches, in order."""

    contract: str
    first_seq: int
    span: int
    rows: int
    raw_bytes: int
    length: int
    checksum: int  # CRC-32 of the block
    windowed: bool  # windows counted them
    fingerprint: int = 0  # of the contract's form that the rows have; 0 in records older than this field
    key: int = 0  # as in BatchRef


class Settled(Struct, frozen=True, array_like=True):
    """A range that was found destroyed, and has been accounted for as lost."""

    contract: str
    first_seq: int
    end_seq: int


class Meta(Struct, frozen=True, array_like=True):
    """What a record says about itself, and what a restart needs. `counts` and `wire` are of this record alone.

    `next_seq` is, per stream, the first number that neither this record nor one before it accounts for. `owed` are the
    ledger entries of this record and of those before it that no ledger batch holds yet; `explained` are the entries in
    this record's ledger batch. `times_us` is the first and last event time by stream. `producers` says which events of
    those that are handed over the spool accounts for, `pulls` how far what was asked for has been answered. `release`
    is that of the bundle that decided, 0 for one without: a start goes on with it, whatever else the disk says, for the
    open windows are those that it plans. `audited` is the newest decision of a person that a record has told of.
    """

    number: int
    next_seq: dict[str, int]
    open_windows: dict[str, tuple[WindowMark, ...]] = {}
    batches: tuple[BatchRef, ...] = ()
    counts: tuple[Count, ...] = ()
    wire: Wire = Wire()
    settled: tuple[Settled, ...] = ()
    owed: tuple[Explained, ...] = ()
    explained: tuple[Explained, ...] = ()
    sealed_at_ms: int = 0
    stored: tuple[StoredRef, ...] = ()
    times_us: dict[str, tuple[int, int]] = {}
    producers: Producers = Producers()
    release: int = 0
    pulls: PullState = PullState()
    audited: int = 0


class Indexed(Struct, frozen=True, array_like=True):
    """A record's entry in the index: its metadata, and where in the segment its body begins."""

    body_offset: int
    meta: Meta


class Checkpoint(Struct, frozen=True, array_like=True):
    """Everything that the records of an epoch amount to, up to and with `newest`."""

    newest: Meta
    counts: tuple[Count, ...] = ()
    wire: Wire = Wire()


class Summary(Struct, frozen=True, array_like=True):
    """What a segment that takes no more records holds. `ranges` include those of records that rotted since."""

    first_number: int
    records: int
    ranges: dict[str, RangeSet]
    settled: tuple[Settled, ...]
    first_ms: int
    last_ms: int
    times_us: dict[str, tuple[int, int]]
    checkpoint: Checkpoint


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
    """What the records amounted to when it was last written, and what of them the lake was known to hold then.

    It is there from the beginning, without a checkpoint before the first record: one that is gone has been taken away.
    """

    checkpoint: Checkpoint | None = None
    held: dict[str, RangeSet] = {}
    deleted: tuple[int, ...] = ()  # segments that the newest deletion was about


def segment_header(epoch: int) -> bytes:
    """Return the first bytes of a segment."""
    head = _SEGMENT.pack(SEGMENT_MAGIC, VERSION, epoch, 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(head))


def frame(content: Meta | Indexed | Summary, body: bytes = b"") -> bytes:
    """Return one frame."""
    packed = msgspec.msgpack.encode(content)
    sizes = struct.pack("<II", len(packed), len(body))
    checksum = zlib.crc32(body, zlib.crc32(packed, zlib.crc32(sizes)))
    return FRAME_MAGIC + sizes + struct.pack("<I", checksum) + packed + body


def summary_frame(summary: Summary) -> bytes:
    """Return the end of an index."""
    framed = frame(summary)
    return framed + _SUMMARY_END.pack(len(framed), SUMMARY_END)


def summary_bytes(end: bytes) -> int | None:
    """Return the size of the summary's frame, given the last SUMMARY_END_BYTES of an index; None when it has none."""
    if len(end) != SUMMARY_END_BYTES:
        return None
    size, magic = _SUMMARY_END.unpack(end)
    return size if magic == SUMMARY_END and size <= RECORD_BYTES_MAX else None


def summary_of(framed: bytes) -> Summary | None:
    """Parse a summary's frame; None when it has rotted."""
    found = _content_at(framed, 0, Summary)
    return found[0] if found is not None else None


def scan(data: bytes) -> Scan:
    """Find every whole frame of a segment; bytes that are not one are stepped over to the next that is."""
    frames: list[Frame] = []
    bad = False
    good_end = min(len(data), SEGMENT_HEADER_BYTES)
    for at in _candidates(data, good_end):
        if at >= good_end and (found := _content_at(data, at, Meta)) is not None:
            meta, body_offset, end = found
            bad = bad or at != good_end
            frames.append(Frame(at, end, body_offset, meta))
            good_end = end
    return Scan(tuple(frames), good_end, bad)


def scan_index(data: bytes) -> tuple[Indexed, ...]:
    """Find every whole entry of an index."""
    entries: list[Indexed] = []
    end = 0
    for at in _candidates(data, 0):
        if at >= end and (found := _content_at(data, at, Indexed)) is not None:
            entry, _, end = found
            entries.append(entry)
    return tuple(entries)


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


def _content_at(data: bytes, at: int, kind: type[_Framed]) -> tuple[_Framed, int, int] | None:
    """Return a frame's content, where its body begins and where it ends; None when there is no such frame."""
    if len(data) - at < FRAME_HEADER_BYTES:
        return None
    _, packed_bytes, body_bytes, checksum = _FRAME.unpack_from(data, at)
    body_offset = at + FRAME_HEADER_BYTES + packed_bytes
    end = body_offset + body_bytes
    if packed_bytes + body_bytes > RECORD_BYTES_MAX or end > len(data):
        return None
    view = memoryview(data)
    if zlib.crc32(view[at + FRAME_HEADER_BYTES : end], zlib.crc32(view[at + 4 : at + 12])) != checksum:
        return None
    try:
        content = msgspec.msgpack.decode(view[at + FRAME_HEADER_BYTES : body_offset], type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return content, body_offset, end
