"""Packed rows of many batches read at once, without a step per row; the format is `contracts.packing`'s. Needs numpy.

This is the reader of those who get batches by the thousand. It was written apart from the device's, which reads one
batch with the standard library; tests let both read the same bytes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.contract import FLOATS, SEQ_COLUMN, Contract, FieldType
from contracts.errors import BatchFormatError
from contracts.microbatch import RAW_BYTES_MAX
from contracts.packing import (
    CONSTANT,
    EXACT_MAX,
    EXPONENT,
    EXPONENT_MAX,
    EXPONENTS,
    KNOWN_TEXT,
    NEW_TEXT,
    NULL_TEXT,
    RAW,
    Plan,
    Stream,
    rows_max,
    streams,
)

Index = NDArray[np.int64]
Words = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_VARINT_BYTES_MAX: Final = 10  # bytes; 64 bits in groups of seven
_CODE_MAX: Final = 2**31  # beyond any number of texts that a batch can hold
_FLOAT_UNITS: Final = np.array([10.0**exponent for exponent in range(EXPONENT_MAX + 1)])
_LONG_UNITS: Final = np.array([10**exponent for exponent in range(EXPONENT_MAX + 1)], dtype=np.int64)
_DTYPES: Final[dict[FieldType, Any]] = {
    FieldType.INT: np.dtype("<i4"),
    FieldType.LONG: np.dtype("<i8"),
    FieldType.FLOAT: np.dtype("<f4"),
    FieldType.DOUBLE: np.dtype("<f8"),
    FieldType.BOOLEAN: np.dtype(np.bool_),
}


def _allowed(exponents: Iterable[int]) -> Mask:
    """Return which of the 256 modes a stream may have."""
    modes = np.zeros(256, dtype=np.bool_)
    for exponent in exponents:
        modes[exponent] = True
        modes[exponent | CONSTANT] = exponent != RAW
    return modes


_PLAIN_MODES: Final = _allowed({0})
_MODES: Final = {kind: _allowed(exponents) for kind, exponents in EXPONENTS.items()}


class Numbers(Struct, frozen=True):
    """A column of numbers or truth values [rows]; `valid` [rows] is None when all are."""

    values: NDArray[Any]
    valid: Mask | None


class Texts(Struct, frozen=True):
    """A column of text: row i is text `index[i]` of `data`, from `offsets` [texts + 1]; -1 is null. UTF-8 unproved."""

    index: Index
    offsets: Index
    data: bytes


def unpack(raws: Sequence[bytes], rows: Sequence[int], plan: Plan, contract: Contract) -> dict[str, Numbers | Texts]:
    """Return the columns of all batches, one after the other, by name in the order of the payload.

    `rows` are those of each batch, at least one. Raises BatchFormatError when one of the batches cannot be read.
    """
    label = f"packed rows of {contract.id}"
    if max(rows, default=1) > rows_max(contract) or min(rows, default=1) < 1:
        raise BatchFormatError(f"{label}: expected 1 to {rows_max(contract)} rows in each batch, found {max(rows)}")
    flow = streams(plan, contract)
    try:
        found = _Joined(raws, np.array(rows, dtype=np.int64), flow).columns()
    except ValueError as error:
        raise BatchFormatError(f"{label}: {error}") from error
    return {name: found[name] for name in (SEQ_COLUMN, *(field.name for field in contract.fields))}


class _Joined:
    """All batches as one: `modes`, `constant`, `live` [batches, streams], `values` every number of every batch."""

    def __init__(self, raws: Sequence[bytes], rows: Index, flow: Sequence[Stream]) -> None:
        self.flow, self.rows = flow, rows
        self.starts = np.cumsum(rows) - rows
        self.within = np.arange(rows.sum(), dtype=np.int64) - np.repeat(self.starts, rows)
        self.modes = _modes(raws, flow)
        self.blobs, sections = _split(raws, len(flow))
        self.values, counts = _numbers(sections)
        self.constant = (self.modes & CONSTANT) > 0
        self.live = ~self.constant & (self.modes != RAW)
        apart = self.live & np.array([stream.planned.apart and not stream.validity for stream in flow])
        inside = self.live & ~apart
        self.width = inside.sum(axis=1)
        first = np.cumsum(counts) - counts
        self.constants_at = first[:, None] + 2 * (np.cumsum(self.constant, axis=1) - self.constant)
        self.lengths_at = first + 2 * self.constant.sum(axis=1)
        self.rows_at = first + counts - self.live.sum(axis=1) * rows
        if (self.rows_at < self.lengths_at).any():
            raise ValueError("expected more numbers than a batch has")
        # Where a live stream begins, and how far its numbers lie from row to row.
        ahead = np.cumsum(inside, axis=1) - inside
        apart_at = (self.width * rows)[:, None] + (np.cumsum(apart, axis=1) - apart) * rows[:, None]
        self.live_at = self.rows_at[:, None] + np.where(apart, apart_at, ahead)
        self.step = np.where(inside, self.width[:, None], apart)
        self.texts_at = np.zeros(len(rows), dtype=np.int64)  # of each batch's blob, what has been taken
        self.text_bytes = np.zeros(len(rows), dtype=np.int64)

    def columns(self) -> dict[str, Numbers | Texts]:
        found: dict[str, Numbers | Texts] = {}
        raw: list[int] = []
        numbers: dict[int, Index] = {}
        valid: Mask | None = None
        for at, stream in enumerate(self.flow):
            coded = self._stream(at)
            if stream.validity:
                if coded.max() > 1:
                    raise ValueError(f"{stream.column.name}: expected a validity of 0 or 1, found {coded.max()}")
                valid = None if coded.all() else coded == 1
            elif stream.column.type is FieldType.STRING:
                found[stream.column.name] = self._texts(stream, coded)
            else:
                numbers[stream.planned.column] = restored = self._restored(stream, at, coded, numbers)
                found[stream.column.name] = Numbers(self._unscaled(stream, at, restored), valid)
                if (self.modes[:, at] == RAW).any():
                    raw.append(at)
                valid = None
        if (self.lengths_at != self.rows_at).any():
            raise ValueError("expected as many text lengths as new texts")
        for at in raw:
            self._fill_raw(at, found[self.flow[at].column.name])
        if (self.texts_at != [len(blob) for blob in self.blobs]).any():
            raise ValueError("expected nothing in a blob but texts and raw floats")
        return found

    def _stream(self, at: int) -> Words:
        """Return the numbers of one stream over all rows; 0 where it is raw."""
        live, constant = self.live[:, at], self.constant[:, at]
        place = np.where(live, self.live_at[:, at], self.constants_at[:, at])
        if live.all():
            found: Words = self.values[
                np.repeat(place, self.rows) + self.within * np.repeat(self.step[:, at], self.rows)
            ]
            return found
        if constant.all():
            coded: Words = np.repeat(self.values[place + 1], self.rows)
            coded[self.starts] = self.values[place]
            return coded
        present = np.repeat(live | constant, self.rows)
        step = np.repeat(self.step[:, at], self.rows)
        index = np.repeat(place, self.rows) + self.within * step
        index += np.repeat(constant, self.rows) & (self.within > 0)
        coded = np.zeros(len(present), dtype=np.uint64)
        coded[present] = self.values[index[present]]
        return coded

    def _texts(self, stream: Stream, coded: Words) -> Texts:
        name = stream.column.name
        if int(coded.max()) >= _CODE_MAX:
            raise ValueError(f"{name}: code {coded.max()} is of no text")
        codes = coded.astype(np.int64)
        known = [text.encode() for text in stream.planned.texts]
        is_new = codes == NEW_TEXT
        new = np.add.reduceat(is_new, self.starts, dtype=np.int64)
        if ((codes - KNOWN_TEXT) >= np.repeat(len(known) + new, self.rows)).any():
            raise ValueError(f"{name}: a code is of no text")
        if (self.lengths_at + new > self.rows_at).any():
            raise ValueError(f"{name}: expected a length for each new text")
        new_at = np.cumsum(new) - new
        each = np.arange(new.sum(), dtype=np.int64) - np.repeat(new_at, new)
        sizes = self.values[np.repeat(self.lengths_at, new) + each]
        if len(sizes) and int(sizes.max()) > RAW_BYTES_MAX:
            raise ValueError(f"{name}: a text of {sizes.max()} bytes")
        self.lengths_at = self.lengths_at + new
        data = b"".join((*known, *self._cut(name, sizes.astype(np.int64), new)))
        every = np.concatenate((np.array([len(text) for text in known], dtype=np.int64), sizes.astype(np.int64)))
        # A batch's own texts follow the plan's; all batches' own texts stand behind one another here.
        index = codes - KNOWN_TEXT
        own = index >= len(known)
        index[own] += np.repeat(new_at, self.rows)[own]
        index[is_new] = len(known) + np.arange(len(sizes))
        index[codes == NULL_TEXT] = -1
        unpacked = np.add.reduceat(np.append(every, 0)[index], self.starts)
        self.text_bytes = self.text_bytes + unpacked
        if (self.text_bytes > RAW_BYTES_MAX).any():
            raise ValueError(f"{name}: more than {RAW_BYTES_MAX} bytes of text in a batch")
        return Texts(index, np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(every))), data)

    def _cut(self, name: str, sizes: Index, new: Index) -> list[bytes]:
        """Take the texts of one column out of every blob."""
        ends = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
        taken = np.diff(ends[np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(new)))])
        first, self.texts_at = self.texts_at, self.texts_at + taken
        if (self.texts_at > [len(blob) for blob in self.blobs]).any():
            raise ValueError(f"{name}: its texts are longer than the blob")
        places = zip(self.blobs, first.tolist(), self.texts_at.tolist(), strict=True)
        return [blob[begin:end] for blob, begin, end in places if end > begin]

    def _restored(self, stream: Stream, at: int, coded: Words, numbers: dict[int, Index]) -> Index:
        """Undo zigzag, difference and terms, all modulo 2**64."""
        one = np.uint64(1)
        values: Index = (coded >> one).view(np.int64) ^ -(coded & one).view(np.int64)
        if stream.planned.difference:
            sums = np.cumsum(values)
            values = sums - np.repeat(sums[self.starts] - values[self.starts], self.rows)
        values = values + stream.planned.base
        for term in stream.planned.terms:
            values = values + term.factor * numbers[term.column]
        raw = self.modes[:, at] == RAW
        if raw.any():
            values = np.where(np.repeat(raw, self.rows), 0, values)
        return values

    def _unscaled(self, stream: Stream, at: int, numbers: Index) -> NDArray[Any]:
        values: NDArray[Any]
        kind, name = stream.column.type, stream.column.name
        low, high = int(numbers.min()), int(numbers.max())
        exponents = self.modes[:, at] & EXPONENT
        if kind in FLOATS:
            if not -EXACT_MAX < low <= high < EXACT_MAX:
                raise ValueError(f"{name}: a float's number must be below 2**53")
            units = np.repeat(_FLOAT_UNITS[np.where(exponents == RAW, 0, exponents)], self.rows)
            values = (numbers / units).astype(_DTYPES[kind])
            return values
        if kind is FieldType.BOOLEAN and not 0 <= low <= high <= 1:
            raise ValueError(f"{name}: expected 0 or 1, found {low} to {high}")
        if kind is FieldType.INT and not -(2**31) <= low <= high < 2**31:
            raise ValueError(f"{name}: expected 32-bit values, found {low} to {high}")
        if kind is FieldType.LONG and exponents.any():
            units = np.repeat(_LONG_UNITS[exponents], self.rows)
            values = numbers * units
            if (values // units != numbers).any():
                raise ValueError(f"{name}: expected 64-bit values")
            return values
        values = numbers.astype(_DTYPES[kind])
        return values

    def _fill_raw(self, at: int, column: Numbers | Texts) -> None:
        assert isinstance(column, Numbers)
        dtype = _DTYPES[self.flow[at].column.type]
        for batch in np.flatnonzero(self.modes[:, at] == RAW).tolist():
            start, count = int(self.starts[batch]), int(self.rows[batch])
            begin = int(self.texts_at[batch])
            part = self.blobs[batch][begin : begin + count * dtype.itemsize]
            if len(part) < count * dtype.itemsize:
                raise ValueError(f"{self.flow[at].column.name}: expected {count} raw floats")
            column.values[start : start + count] = np.frombuffer(part, dtype)
            self.texts_at[batch] += len(part)


def _modes(raws: Sequence[bytes], flow: Sequence[Stream]) -> NDArray[np.uint8]:
    if min(map(len, raws), default=0) < len(flow):
        raise ValueError(f"expected {len(flow)} modes, found {min(map(len, raws))} bytes")
    modes = np.frombuffer(b"".join(raw[: len(flow)] for raw in raws), np.uint8).reshape(len(raws), len(flow))
    for at, stream in enumerate(flow):
        allowed = _PLAIN_MODES if stream.validity else _MODES[stream.column.type]
        if not allowed[modes[:, at]].all():
            raise ValueError(f"{stream.column.name}: a mode is not one of its type")
    return modes


def _split(raws: Sequence[bytes], modes: int) -> tuple[list[bytes], list[bytes]]:
    """Return the blob of each batch, and what lies behind it."""
    blobs: list[bytes] = []
    sections: list[bytes] = []
    for raw in raws:
        size = shift = 0
        at = modes
        while True:
            if at == len(raw) or shift == 7 * _VARINT_BYTES_MAX:
                raise ValueError("expected the size of the blob behind the modes")
            size |= (raw[at] & 127) << shift
            shift += 7
            at += 1
            if raw[at - 1] < 128:
                break
        end = at + size % 2**64
        if end > len(raw):
            raise ValueError(f"expected a blob of {size} bytes, found {len(raw) - at}")
        blobs.append(raw[at:end])
        sections.append(raw[end:])
    return blobs, sections


def _numbers(sections: Sequence[bytes]) -> tuple[Words, Index]:
    """Return every LEB128 number of all sections, and how many each has; two zeros stand behind the last."""
    data = np.frombuffer(b"".join(sections), np.uint8)
    stops = np.cumsum([len(section) for section in sections], dtype=np.int64)
    last = data < 128
    if any(section and section[-1] > 127 for section in sections):
        raise ValueError("expected the last number to end")
    before = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(last)))
    counts = np.diff(before[np.concatenate((np.zeros(1, dtype=np.int64), stops))])
    if last.all():
        return np.append(data.astype(np.uint64), np.zeros(2, np.uint64)), counts
    ends = np.flatnonzero(last)
    begins = np.concatenate((np.zeros(1, dtype=np.int64), ends[:-1] + 1))
    lengths = ends - begins + 1
    longest = int(lengths.max())
    if longest > _VARINT_BYTES_MAX:
        raise ValueError(f"expected numbers of at most {_VARINT_BYTES_MAX} bytes, found {longest}")
    values = (data[begins] & 127).astype(np.uint64)
    for at in range(1, longest):
        longer = np.flatnonzero(lengths > at)
        values[longer] |= (data[begins[longer] + at] & 127).astype(np.uint64) << np.uint64(7 * at)
    return np.append(values, np.zeros(2, np.uint64)), counts
