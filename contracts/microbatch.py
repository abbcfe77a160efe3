"""The micro-batch: what a device publishes, the log carries and the lake ingests.

A batch is a fixed header followed by a payload. All integers are little-endian:

| offset | bytes | field           | meaning                                                              |
| ------ | ----- | --------------- | -------------------------------------------------------------------- |
| 0      | 4     | magic           | `FLMB`                                                               |
| 4      | 1     | version         | 1                                                                    |
| 5      | 1     | codec           | 1 = one zstd frame of one Arrow IPC record batch message,            |
|        |       |                 | 2 = packed rows, see `contracts.packing`                             |
| 6      | 2     | flags           | bit 0 backlog, bit 1 sample of dropped events, bit 2 replay,         |
|        |       |                 | bit 3 put back from the quarantine                                   |
| 8      | 8     | fingerprint     | contract fingerprint, see `contracts.contract.fingerprint`           |
| 16     | 4     | epoch           | grows when the origin's spool is created anew                        |
| 20     | 4     | dictionary_id   | id of the zstd dictionary, 0 = none                                  |
| 24     | 8     | first_seq       | first sequence number that the batch accounts for                    |
| 32     | 8     | sealed_at_ms    | Unix time in ms at which the origin sealed the batch                 |
| 40     | 4     | span            | how many sequence numbers it accounts for, rows sent or not          |
| 44     | 4     | rows            | rows in the payload, at most `span`                                  |
| 48     | 4     | raw_bytes       | size of the payload once decompressed                                |
| 52     | 4     | checksum        | CRC-32 of bytes 0-51 and the payload                                 |

The checksum covers the header too: a flipped bit in `first_seq` would otherwise forge an identity. A payload of codec
1 is an Arrow IPC *record batch message without its schema message*, so the payloads of one contract concatenate behind
one schema message into a valid IPC stream. Column 0 is `seq`; columns marked `difference` hold the first value of the
batch and then the difference to the row before. A payload of codec 2 has the same columns in less than half the bytes;
contract and dictionary say how they lie. The origin is not in the batch: it is the authenticated name on the topic.
"""

import struct
import zlib
from enum import IntEnum, IntFlag
from typing import Final

from msgspec import Struct

from contracts.errors import BatchChecksumError, BatchFormatError, BatchTruncatedError

MAGIC: Final = b"FLMB"
VERSION: Final = 1
HEADER_BYTES: Final = 56
BATCH_BYTES_MAX: Final = 131_072  # bytes; well under the broker's packet limit, and 20 in flight stay under 3 MB
RAW_BYTES_MAX: Final = 8_388_608  # bytes; bounds what one batch may inflate to in a reader
SPAN_MAX: Final = 10_000_000  # events; a batch that claims more than a device observes in hours is broken
SEQ_MAX: Final = 2**63 - 1  # the lake's columns are signed 64-bit
SEALED_AT_MS_MAX: Final = 253_402_300_799_999  # the end of the year 9999, the last that every reader can show

_LAYOUT: Final = struct.Struct("<4sBBHQIIQQIIII")
_CHECKSUM_AT: Final = HEADER_BYTES - 4
_RAW_BYTES_AT: Final = _CHECKSUM_AT - 4
_WIDTHS_BITS: Final = {
    "codec": 8, "flags": 16, "fingerprint": 64, "epoch": 32, "dictionary_id": 32,
    "first_seq": 64, "sealed_at_ms": 64, "span": 32, "rows": 32, "raw_bytes": 32,
}  # fmt: skip


class Codec(IntEnum):
    """How the payload is packed."""

    ARROW_ZSTD = 1
    PACKED_ZSTD = 2


_CODECS: Final = tuple(map(int, Codec))


class Flag(IntFlag):
    """What kind of sending this is; readers treat the rows alike."""

    BACKLOG = 1
    DROPPED_SAMPLE = 2
    REPLAY = 4
    REPLAYED = 8  # a refused row, put back from the quarantine; not for origins to say


class Header(Struct, frozen=True):
    """The header of a micro-batch, without magic, version and checksum."""

    fingerprint: int
    epoch: int
    first_seq: int
    span: int
    rows: int
    raw_bytes: int
    sealed_at_ms: int
    dictionary_id: int = 0
    flags: int = 0
    codec: int = Codec.ARROW_ZSTD

    @property
    def end_seq(self) -> int:
        """First sequence number after the batch."""
        return self.first_seq + self.span


def seal(header: Header, payload: bytes) -> bytes:
    """Return the bytes of a batch.

    Raises BatchFormatError when the header breaks a limit or the batch exceeds BATCH_BYTES_MAX.
    """
    _check_widths(header)
    _check_limits(header)
    if HEADER_BYTES + len(payload) > BATCH_BYTES_MAX:
        raise BatchFormatError(
            f"batch at seq {header.first_seq}: {HEADER_BYTES + len(payload)} bytes, at most {BATCH_BYTES_MAX} "
            "allowed: seal fewer rows per batch"
        )
    head = _LAYOUT.pack(
        MAGIC, VERSION, header.codec, header.flags, header.fingerprint, header.epoch, header.dictionary_id,
        header.first_seq, header.sealed_at_ms, header.span, header.rows, header.raw_bytes, 0,
    )[:_CHECKSUM_AT]  # fmt: skip
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def parse(batch: bytes) -> tuple[Header, memoryview]:
    """Return header and payload (a view into `batch`), verified by checksum.

    Raises BatchTruncatedError, BatchChecksumError or BatchFormatError.
    """
    if len(batch) < HEADER_BYTES:
        raise BatchTruncatedError(f"batch: expected at least {HEADER_BYTES} bytes of header, found {len(batch)}")
    (
        magic, version, codec, flags, fingerprint, epoch, dictionary_id,
        first_seq, sealed_at_ms, span, rows, raw_bytes, checksum,
    ) = _LAYOUT.unpack_from(batch)  # fmt: skip
    if magic != MAGIC or version != VERSION:
        raise BatchFormatError(f"batch: expected magic {MAGIC!r} version {VERSION}, found {magic!r} version {version}")
    view = memoryview(batch)
    payload = view[HEADER_BYTES:]
    found = zlib.crc32(payload, zlib.crc32(view[:_CHECKSUM_AT]))
    if found != checksum:
        raise BatchChecksumError(
            f"batch at seq {first_seq}: checksum {checksum:#010x} in the header, {found:#010x} over its bytes: "
            "it was cut or damaged on the way"
        )
    header = Header(
        fingerprint=fingerprint, epoch=epoch, first_seq=first_seq, span=span, rows=rows, raw_bytes=raw_bytes,
        sealed_at_ms=sealed_at_ms, dictionary_id=dictionary_id, flags=flags, codec=codec,
    )  # fmt: skip
    _check_limits(header)
    return header, payload


def claimed_raw_bytes(batch: bytes) -> int:
    """Return what a batch says it inflates to, at most RAW_BYTES_MAX, unchecked; 0 for what does not look like one."""
    if len(batch) < HEADER_BYTES or not batch.startswith(MAGIC):
        return 0
    return min(RAW_BYTES_MAX, int.from_bytes(batch[_RAW_BYTES_AT:_CHECKSUM_AT], "little"))


def _check_widths(header: Header) -> None:
    for name, bits in _WIDTHS_BITS.items():
        value = getattr(header, name)
        if not 0 <= value < 1 << bits:
            raise BatchFormatError(
                f"batch at seq {header.first_seq}: {name} {value}: expected an unsigned {bits}-bit value"
            )


def _check_limits(header: Header) -> None:
    if header.codec not in _CODECS:
        raise BatchFormatError(
            f"batch at seq {header.first_seq}: codec {header.codec} is not known, expected {_CODECS}"
        )
    if not 0 < header.span <= SPAN_MAX or header.rows > header.span:
        raise BatchFormatError(
            f"batch at seq {header.first_seq}: span {header.span} with {header.rows} rows, "
            f"expected 1..{SPAN_MAX} and no more rows than span"
        )
    if header.end_seq > SEQ_MAX or header.sealed_at_ms > SEALED_AT_MS_MAX:
        raise BatchFormatError(
            f"batch at seq {header.first_seq}: ends at {header.end_seq} and was sealed at {header.sealed_at_ms} ms, "
            f"expected at most {SEQ_MAX} and {SEALED_AT_MS_MAX}: check the origin's counter and clock"
        )
    if header.raw_bytes > RAW_BYTES_MAX:
        raise BatchFormatError(
            f"batch at seq {header.first_seq}: {header.raw_bytes} bytes once decompressed, at most {RAW_BYTES_MAX}"
        )
