"""A micro-batch's payload: rows to the bytes of one zstd frame, and back.

What goes over the wire is packed (codec 2) and compressed as far as zstd goes; what stays on the device, in spool and
raw ring, is an Arrow record batch message (codec 1) compressed in passing. Rows that are too many to be packed travel
as Arrow too. Without numpy both work on `array.array`s and lists.
"""

from array import array
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from typing import Final, NamedTuple

import zstandard
from msgspec import Struct

from contracts import packing, wire
from contracts.contract import SEQ_COLUMN, Contract, FieldType
from contracts.errors import BatchFormatError
from contracts.microbatch import RAW_BYTES_MAX, Codec
from contracts.wire import WireColumn
from edge_agent.core.codec import record_batch
from edge_agent.core.codec.packed import Packer
from edge_agent.core.codec.record_batch import CODES, Column, Columns

TABLES_BYTES_MAX: Final = 1_572_864  # bytes; what a compressor keeps of a large payload beyond it is let go of
LARGE_BYTES: Final = 65_536  # bytes; beyond, level 19 would take tens of ms and several MB for its tables

# The process's one of a kind, by level or form and dictionary: each holds tables of up to some MB.
_COMPRESSORS: Final[dict[tuple[int, bytes], zstandard.ZstdCompressor]] = {}
_DECOMPRESSORS: Final[dict[tuple[bytes, bool], zstandard.ZstdDecompressor]] = {}


class Purpose(Enum):
    """What a payload is made for; the value is its zstd level, and that of a payload beyond LARGE_BYTES."""

    WIRE = (19, 9)  # the uplink is dearer than some us of CPU per event
    BULK = (9, 3)  # thousands of rows that somebody waits for: packed they would take ten times as long
    STORE = (1, 1)  # written once and mostly never read; level 3 takes a third more time for 1 to 6 % fewer bytes


class Payload(Struct, frozen=True):
    """Compressed bytes and what a batch's header says of them."""

    data: bytes
    raw_bytes: int
    codec: Codec
    dictionary_id: int


class Rows(NamedTuple):
    """Sequence numbers, and the columns of the contract by field name, differences undone; all of one length.

    With arrays, required numbers and truth values are numpy arrays, which may be read-only, and every other column is a
    list in which None is null.
    """

    seqs: Column
    columns: dict[str, Column]


class PayloadEncoder:
    """Encodes rows of one contract. `dictionary` is a trained zstd dictionary with its plan, empty for none.

    Raises ContractError when the dictionary was trained for another version of the contract.
    """

    def __init__(self, contract: Contract, dictionary: bytes = b"") -> None:
        self._columns = wire.columns(contract)
        self._packer = Packer(contract, dictionary)
        self._dictionary = dictionary
        self._dictionary_id = dictionary_id(dictionary)

    def encode(self, seqs: Column, columns: Columns, purpose: Purpose = Purpose.WIRE) -> Payload:
        """Encode and compress rows; a field that `columns` lacks is null.

        Raises BatchFormatError for a null in a required column, a value of another type or columns of other lengths.
        """
        if purpose is Purpose.WIRE and (packed := self.packed(seqs, columns)) is not None:
            level = purpose.value[len(packed) > LARGE_BYTES]
            compressor = _packed_compressor(level, self._dictionary)
            data = compressor.compress(packed)
            if compressor.memory_size() > TABLES_BYTES_MAX:
                del _COMPRESSORS[level, self._dictionary]
            return Payload(data, len(packed), Codec.PACKED_ZSTD, self._dictionary_id)
        message = self.message(seqs, columns)
        level = purpose.value[len(message) > LARGE_BYTES]
        return Payload(_arrow_compressor(level).compress(message), len(message), Codec.ARROW_ZSTD, 0)

    def message(self, seqs: Column, columns: Columns) -> bytes:
        """Return rows as an Arrow record batch message. Raises as `encode` does."""
        return record_batch.write(self._columns, _with_seq(seqs, columns), len(seqs))

    def packed(self, seqs: Column, columns: Columns) -> bytes | None:
        """Return rows packed, None when they are too many. Raises as `encode` does."""
        return self._packer.pack(_with_seq(seqs, columns), len(seqs))


class PayloadDecoder:
    """Decodes payloads of one contract; `arrays` says whether numpy arrays are wanted or `array.array`s and lists."""

    def __init__(self, contract: Contract, dictionary: bytes = b"", *, arrays: bool = True) -> None:
        self._label = f"payload of {contract.id}"
        self._columns = wire.columns(contract)
        self._packer = Packer(contract, dictionary)
        self._dictionary = dictionary
        self._arrays = arrays

    def decode(self, payload: bytes, rows: int, raw_bytes: int, codec: int = Codec.ARROW_ZSTD) -> Rows:
        """Return the rows of a payload; it may be hostile.

        Raises BatchFormatError unless it holds exactly this many rows in this many bytes once decompressed.
        """
        raw = self._decompressed(payload, raw_bytes, codec)
        if codec == Codec.PACKED_ZSTD:
            lists = self._packer.unpack(raw, rows)
            found = {column.name: self._typed(column, lists[column.name]) for column in self._columns}
        else:
            found = record_batch.read(raw, self._columns, rows, arrays=self._arrays)
        return Rows(found.pop(SEQ_COLUMN), found)

    def _decompressed(self, payload: bytes, raw_bytes: int, codec: int) -> bytes:
        if not 0 <= raw_bytes <= RAW_BYTES_MAX or codec not in tuple(Codec):
            raise BatchFormatError(
                f"{self._label}: codec {codec} with {raw_bytes} bytes, at most {RAW_BYTES_MAX} allowed"
            )
        packed = codec == Codec.PACKED_ZSTD
        reader = _decompressor(self._dictionary if packed else b"", packed)
        try:
            # Asked before anything is inflated: the frame's own claim would decide how much memory is taken.
            head = packing.ZSTD_MAGIC + payload[: packing.FRAME_HEADER_BYTES_MAX] if packed else payload
            claimed = zstandard.frame_content_size(head)
            if claimed not in (-1, raw_bytes):
                raise BatchFormatError(f"{self._label}: expected {raw_bytes} bytes, its frame claims {claimed}")
            raw = reader.decompress(payload, max_output_size=max(1, raw_bytes), allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise BatchFormatError(f"{self._label}: expected one zstd frame: {error}") from error
        if len(raw) != raw_bytes:
            raise BatchFormatError(f"{self._label}: expected {raw_bytes} bytes, found {len(raw)}")
        return raw

    def _typed(self, column: WireColumn, values: list[object]) -> Column:
        if not column.required or column.type is FieldType.STRING:
            return values
        kind = "?" if column.type is FieldType.BOOLEAN else CODES[column.type]
        if self._arrays:
            import numpy as np

            return np.array(values, dtype=kind)
        return values if kind == "?" else array(kind, values)


def _with_seq(seqs: Column, columns: Columns) -> Mapping[str, Column]:
    return {**columns, SEQ_COLUMN: seqs}


@cache
def _arrow_compressor(level: int) -> zstandard.ZstdCompressor:
    """Return the process's one compressor of a kind: each holds tables of up to some MB."""
    return zstandard.ZstdCompressor(level=level)


def dictionary_id(dictionary: bytes) -> int:
    """Return the number inside a zstd dictionary, 0 for none."""
    return zstandard.ZstdCompressionDict(dictionary).dict_id() if dictionary else 0


def forget_all_but(dictionaries: Collection[bytes]) -> None:
    """Let go of what was made for dictionaries that are not used any more; another use makes it again."""
    for key in [key for key in _COMPRESSORS if key[1] and key[1] not in dictionaries]:
        del _COMPRESSORS[key]
    for source in [source for source in _DECOMPRESSORS if source[0] and source[0] not in dictionaries]:
        del _DECOMPRESSORS[source]


def _packed_compressor(level: int, dictionary: bytes) -> zstandard.ZstdCompressor:
    found = _COMPRESSORS.get((level, dictionary))
    if found is None:
        found = _COMPRESSORS[level, dictionary] = _new_packed_compressor(level, dictionary)
    return found


def _new_packed_compressor(level: int, dictionary: bytes) -> zstandard.ZstdCompressor:
    # Told how much it will get: else level 19 takes tables for 8 MB at a time.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=LARGE_BYTES,
        dict_size=len(dictionary),
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    trained = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdCompressor(dict_data=trained, compression_params=parameters)


def _decompressor(dictionary: bytes, magicless: bool) -> zstandard.ZstdDecompressor:
    found = _DECOMPRESSORS.get((dictionary, magicless))
    if found is None:
        found = _DECOMPRESSORS[dictionary, magicless] = _new_decompressor(dictionary, magicless)
    return found


def _new_decompressor(dictionary: bytes, magicless: bool) -> zstandard.ZstdDecompressor:
    form = zstandard.FORMAT_ZSTD1_MAGICLESS if magicless else zstandard.FORMAT_ZSTD1
    trained = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return zstandard.ZstdDecompressor(dict_data=trained, format=form)
