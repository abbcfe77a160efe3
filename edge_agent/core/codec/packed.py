"""Packed rows (codec 2) written and read on the device, with nothing but the standard library; see `contracts.packing`.

What is packed is what the filter has kept, some hundred rows at a time, for some us each; so one way serves a device
with numpy and one without.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, chain
from operator import add, sub
from typing import Any, Final

from contracts import packing
from contracts.contract import FLOATS, Contract, FieldType
from contracts.errors import BatchFormatError
from contracts.microbatch import RAW_BYTES_MAX
from contracts.packing import CONSTANT, EXACT_MAX, EXPONENT, EXPONENT_MAX, INTEGER_EXPONENTS, KNOWN_TEXT, RAW, Stream
from contracts.wire import WireColumn
from edge_agent.core.codec.record_batch import CODES, Column, Columns

_VARINT_BYTES_MAX: Final = 10  # bytes; 64 bits in groups of seven
_MASK: Final = 2**64 - 1
_HALF: Final = 2**63
_PROBED: Final = 4  # values that an exponent must fit before all are tried

Numbers = list[int]


class Packer:
    """Packs and unpacks rows of one contract by the plan of its dictionary. Raises ContractError for a broken plan."""

    def __init__(self, contract: Contract, dictionary: bytes = b"") -> None:
        self._label = f"packed rows of {contract.id}"
        self._streams = packing.streams(packing.plan_of(contract, dictionary), contract)
        self._rows_max = packing.rows_max(contract)

    def pack(self, values: Columns, rows: int) -> bytes | None:
        """Return rows packed, None when they are more than a batch may pack; a column that `values` lacks is null.

        Raises BatchFormatError for a null in a required column, a value of another type or columns of other lengths.
        """
        if rows > self._rows_max:
            return None
        return _Packing(rows).pack(self._streams, values) if rows else b""

    def unpack(self, raw: bytes, rows: int) -> dict[str, list[Any]]:
        """Return the columns as lists in which None is null; input may be hostile.

        Raises BatchFormatError unless `raw` is this many packed rows and nothing else.
        """
        try:
            if rows > self._rows_max or (not rows and raw):
                raise ValueError(f"{rows} rows in {len(raw)} bytes, at most {self._rows_max} may be packed")
            if not rows:
                return {stream.column.name: [] for stream in self._streams if not stream.validity}
            return _Unpacking(raw, rows, self._streams).unpack()
        except (ValueError, OverflowError) as error:
            raise BatchFormatError(f"{self._label}: {error}") from error


class _Packing:
    """One batch on its way into bytes."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._numbers: dict[int, Numbers] = {}
        self._modes = bytearray()
        self._constants: Numbers = []
        self._lengths: Numbers = []
        self._live: list[Numbers] = []
        self._apart: list[Numbers] = []
        self._texts: list[bytes] = []
        self._raw: list[bytes] = []
        self._text_bytes = 0

    def pack(self, streams: Sequence[Stream], columns: Columns) -> bytes | None:
        for stream in streams:
            column = stream.column
            values = _listed(column, columns.get(column.name), self._rows)
            if stream.validity:
                self._put(0, [0 if value is None else 1 for value in values], apart=False)
                continue
            if not column.required:
                values = _filled(values) if column.type is not FieldType.STRING else values
            if column.type is FieldType.STRING:
                self._text(stream, values)
            else:
                self._number(stream, values)
        if self._text_bytes > RAW_BYTES_MAX:
            return None
        blob = b"".join(self._texts + self._raw)
        rows = chain(chain.from_iterable(zip(*self._live, strict=True)), *self._apart)
        return b"".join((self._modes, _varints([len(blob)]), blob, _varints([*self._constants, *self._lengths, *rows])))

    def _put(self, mode: int, stream: Numbers, *, apart: bool) -> None:
        if stream[1:].count(stream[-1]) == self._rows - 1:
            self._modes.append(mode | CONSTANT)
            self._constants += (stream[0], stream[-1])
        else:
            self._modes.append(mode)
            (self._apart if apart else self._live).append(stream)

    def _number(self, stream: Stream, values: list[Any]) -> None:
        exponent, numbers = _scaled(stream.column, values)
        if numbers is None:
            self._numbers[stream.planned.column] = [0] * self._rows
            self._modes.append(RAW)
            self._raw.append(array(CODES[stream.column.type], values).tobytes())
            return
        self._numbers[stream.planned.column] = numbers
        left = numbers
        for term in stream.planned.terms:
            left = [a - term.factor * b for a, b in zip(left, self._numbers[term.column], strict=True)]
        if stream.planned.base:
            left = [value - stream.planned.base for value in left]
        if stream.planned.difference:
            left = [left[0], *map(sub, left[1:], left)]
        if not -_HALF <= min(left) <= max(left) < _HALF:
            left = [_wrapped(value) for value in left]
        self._put(exponent, [value << 1 ^ value >> 63 for value in left], apart=stream.planned.apart)

    def _text(self, stream: Stream, values: list[Any]) -> None:
        codes: dict[Any, int] = {None: packing.NULL_TEXT}
        codes.update((text, code) for code, text in enumerate(stream.planned.texts, KNOWN_TEXT))
        coded: Numbers = []
        new: list[bytes] = []
        try:
            for value in values:
                code = codes.get(value)
                if code is None:
                    codes[value] = KNOWN_TEXT + len(stream.planned.texts) + len(new)
                    new.append(value.encode())
                    code = packing.NEW_TEXT
                coded.append(code)
            counted = Counter(values)
            del counted[None]
            self._text_bytes += sum(len(text.encode()) * count for text, count in counted.items())
        except (AttributeError, TypeError, UnicodeError) as error:
            raise BatchFormatError(f"column {stream.column.name}: expected text: {error}") from error
        self._lengths += map(len, new)
        self._texts += new
        self._put(0, coded, apart=stream.planned.apart)


class _Unpacking:
    """One batch on its way out of bytes."""

    def __init__(self, raw: bytes, rows: int, streams: Sequence[Stream]) -> None:
        self._rows = rows
        self._streams = streams
        self._modes = raw[: len(streams)]
        if len(self._modes) < len(streams):
            raise ValueError(f"expected {len(streams)} modes, found {len(self._modes)} bytes")
        for stream, mode in zip(streams, self._modes, strict=True):
            _check_mode(stream, mode)
        size, at = _first_varint(raw, len(streams))
        self._blob, rest = raw[at : at + size], raw[at + size :]
        if len(self._blob) < size:
            raise ValueError(f"expected a blob of {size} bytes, found {len(self._blob)}")
        numbers = _numbers(rest)
        constant = sum(mode & CONSTANT > 0 for mode in self._modes)
        live = [
            stream.planned.apart and not stream.validity
            for stream, mode in zip(streams, self._modes, strict=True)
            if not mode & CONSTANT and mode != RAW
        ]
        apart_at = len(numbers) - sum(live) * rows
        width = len(live) - sum(live)
        lengths_end = apart_at - width * rows
        if lengths_end < 2 * constant:
            raise ValueError(f"expected {len(live)} numbers in each of {rows} rows, found {len(numbers)} in all")
        self._constants = iter(numbers[: 2 * constant])
        self._lengths = numbers[2 * constant : lengths_end]
        self._live = iter([numbers[lengths_end + at : apart_at : width] for at in range(width)])
        self._apart = iter([numbers[at : at + rows] for at in range(apart_at, len(numbers), rows)])
        self._taken = self._blob_at = self._text_bytes = 0

    def unpack(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        raw: list[tuple[Stream, list[int] | None]] = []
        numbers: dict[int, Numbers] = {}
        valid: Numbers | None = None
        for stream, mode in zip(self._streams, self._modes, strict=True):
            coded = [0] * self._rows if mode == RAW else self._stream(stream, mode)
            if stream.validity:
                if max(coded) > 1:
                    raise ValueError(f"{stream.column.name}: expected a validity of 0 or 1, found {max(coded)}")
                valid = coded
                continue
            if stream.column.type is FieldType.STRING:
                found[stream.column.name] = self._text(stream, coded)
                continue
            if mode == RAW:
                raw.append((stream, valid))
                numbers[stream.planned.column] = coded
                found[stream.column.name] = []
            else:
                numbers[stream.planned.column] = _restored(stream, coded, numbers)
                exponent = mode & EXPONENT
                found[stream.column.name] = _nulled(_unscaled(stream, exponent, numbers), valid)
            valid = None
        for stream, known in raw:
            found[stream.column.name] = _nulled(self._raw_floats(stream), known)
        if self._taken != len(self._lengths) or self._blob_at != len(self._blob):
            raise ValueError(f"expected {self._taken} texts and {self._blob_at} bytes in the blob, found others")
        if self._text_bytes > RAW_BYTES_MAX:
            raise ValueError(f"{self._text_bytes} bytes of text, at most {RAW_BYTES_MAX} may be unpacked")
        return found

    def _stream(self, stream: Stream, mode: int) -> Numbers:
        if mode & CONSTANT:
            return [next(self._constants), *[next(self._constants)] * (self._rows - 1)]
        return next(self._apart if stream.planned.apart and not stream.validity else self._live)

    def _cut(self, size: int) -> bytes:
        part = self._blob[self._blob_at : self._blob_at + size]
        if len(part) < size:
            raise ValueError(f"expected {size} more bytes in the blob, found {len(part)}")
        self._blob_at += size
        return part

    def _text(self, stream: Stream, coded: Numbers) -> list[str | None]:
        sizes = self._lengths[self._taken : self._taken + coded.count(packing.NEW_TEXT)]
        if len(sizes) < coded.count(packing.NEW_TEXT):
            raise ValueError(f"{stream.column.name}: expected a length for each new text")
        self._taken += len(sizes)
        known = stream.planned.texts
        texts: list[str | None] = [None, None, *known, *(self._cut(size).decode() for size in sizes)]
        if max(coded) >= len(texts):
            raise ValueError(f"{stream.column.name}: code {max(coded)} of {len(texts)} texts")
        fresh = iter(range(KNOWN_TEXT + len(known), len(texts)))
        codes = [next(fresh) if code == packing.NEW_TEXT else code for code in coded]
        bytes_of = [0, 0, *(len(text.encode()) for text in known), *sizes]
        self._text_bytes += sum(bytes_of[code] for code in codes)
        return [texts[code] for code in codes]

    def _raw_floats(self, stream: Stream) -> list[float]:
        code = CODES[stream.column.type]
        values: array[Any] = array(code, self._cut(self._rows * array(code).itemsize))
        return values.tolist()


def _listed(column: WireColumn, values: "Column | None", rows: int) -> list[Any]:
    if values is None:
        values = [None] * rows
    if len(values) != rows:
        raise BatchFormatError(f"column {column.name}: expected {rows} values, found {len(values)}")
    listed: list[Any] = values.tolist() if hasattr(values, "tolist") else list(values)
    if column.required and None in listed:
        raise BatchFormatError(f"column {column.name}: expected a value in every row, found {listed.count(None)} nulls")
    return listed


def _filled(values: list[Any]) -> list[Any]:
    return [0 if value is None else value for value in values]


def _nulled(values: list[Any], valid: Numbers | None) -> list[Any]:
    if valid is None or 0 not in valid:
        return values
    return [value if there else None for value, there in zip(values, valid, strict=True)]


def _scaled(column: WireColumn, values: list[Any]) -> tuple[int, Numbers | None]:
    """Return an exponent and the integers that stand for the values, None when these must lie raw."""
    try:
        if column.type is FieldType.BOOLEAN:
            return 0, [1 if value else 0 for value in values]
        # Checks type and range of every value at once, and rounds floats to their 32 bits.
        typed = array(CODES[column.type], values)
    except (TypeError, OverflowError) as error:
        raise BatchFormatError(f"column {column.name}: expected values of type {column.type.value}: {error}") from error
    if column.type in FLOATS:
        return _decimal(typed)
    numbers = typed.tolist()
    if column.type is FieldType.LONG and any(numbers):
        for exponent in INTEGER_EXPONENTS:
            unit = 10**exponent
            if not any(value % unit for value in numbers[:_PROBED]) and not any(value % unit for value in numbers):
                return exponent, [value // unit for value in numbers]
    return 0, numbers


def _decimal(values: "array[Any]") -> tuple[int, Numbers | None]:
    code = values.typecode
    for exponent in range(EXPONENT_MAX + 1):
        unit = 10.0**exponent
        for part in (values[:_PROBED], values):
            try:
                numbers = [round(value * unit) for value in part]
            except (OverflowError, ValueError):  # infinite, or not a number
                return 0, None
            if max(map(abs, numbers)) >= EXACT_MAX:
                return 0, None
            # As bytes: 0.0 and -0.0 are equal, and only one of them comes back.
            if array(code, [number / unit for number in numbers]).tobytes() != part.tobytes():
                break
        else:
            return exponent, numbers
    return 0, None


def _restored(stream: Stream, coded: Numbers, numbers: dict[int, Numbers]) -> Numbers:
    """Undo zigzag, difference and terms."""
    values: Numbers = [value >> 1 ^ -(value & 1) for value in coded]
    if stream.planned.difference:
        values = list(accumulate(values, add))
    if stream.planned.base:
        values = [value + stream.planned.base for value in values]
    for term in stream.planned.terms:
        values = [a + term.factor * b for a, b in zip(values, numbers[term.column], strict=True)]
    if not -_HALF <= min(values) <= max(values) < _HALF:
        values = [_wrapped(value) for value in values]
    return values


def _unscaled(stream: Stream, exponent: int, numbers: dict[int, Numbers]) -> list[Any]:
    values, kind = numbers[stream.planned.column], stream.column.type
    if kind in FLOATS:
        if max(map(abs, values)) >= EXACT_MAX:
            raise ValueError(f"{stream.column.name}: a float's number must be below 2**53")
        unit = 10.0**exponent
        return array(CODES[kind], [value / unit for value in values]).tolist()
    if kind is FieldType.BOOLEAN:
        if not 0 <= min(values) <= max(values) <= 1:
            raise ValueError(f"{stream.column.name}: expected 0 or 1")
        return [value == 1 for value in values]
    return array(CODES[kind], [value * 10**exponent for value in values] if exponent else values).tolist()


def _wrapped(value: int) -> int:
    return (value + _HALF & _MASK) - _HALF


def _check_mode(stream: Stream, mode: int) -> None:
    exponent = mode & EXPONENT
    allowed = {0} if stream.validity else packing.EXPONENTS[stream.column.type]
    if mode & ~(CONSTANT | EXPONENT) or exponent not in allowed or (exponent == RAW and mode & CONSTANT):
        raise ValueError(f"{stream.column.name}: mode {mode:#04x} is not one of its type")


def _varints(numbers: Numbers) -> bytes:
    if max(numbers, default=0) < 128:
        return bytes(numbers)
    out = bytearray()
    for number in numbers:
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        out.append(number)
    return bytes(out)


def _first_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it."""
    value = 0
    for shift, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value & _MASK, at + shift + 1
    raise ValueError(f"number at {at}: expected to end within {_VARINT_BYTES_MAX} bytes")


def _numbers(data: bytes) -> Numbers:
    if not data or max(data) < 128:
        return list(data)
    found: Numbers = []
    value = shift = 0
    for byte in data:
        if byte > 127:
            value |= (byte & 127) << shift
            shift += 7
            if shift == 7 * _VARINT_BYTES_MAX:
                break
        elif shift:
            found.append((value | byte << shift) & _MASK)
            value = shift = 0
        else:
            found.append(byte)
    if shift:
        raise ValueError(f"number {len(found)}: expected to end within {_VARINT_BYTES_MAX} bytes")
    return found
