"""Rows as an Arrow record batch message without its schema, and back; without any Arrow library, and without numpy.

Source: Apache Arrow columnar format, "Physical memory layout". Columns are numpy arrays, `array.array`s or lists in
which None is null; what a column's type is, `contracts.wire` says. Arrays of the right type go into the message as they
lie in memory, so the machine must be little-endian. Equal rows give equal bytes: buffers follow one another, each
padded with zeros to 8 bytes, and a validity bitmap is there only when a null is. numpy is imported only to make arrays.
"""

import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from operator import sub
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from contracts.contract import FieldType
from contracts.errors import BatchFormatError
from contracts.wire import WireColumn
from edge_agent.core.codec import flatbuffer
from edge_agent.core.codec.flatbuffer import Extent, Metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

Column: TypeAlias = "NDArray[Any] | array[Any] | Sequence[Any]"
Columns: TypeAlias = Mapping[str, Column]

# Codes of struct, array and numpy alike.
CODES: Final = {FieldType.INT: "i", FieldType.LONG: "q", FieldType.FLOAT: "f", FieldType.DOUBLE: "d"}
_DIGITS: Final = b"01" + bytes(254)
_BITS: Final = {FieldType.INT: 32, FieldType.LONG: 64}


def write(columns: Sequence[WireColumn], values: Mapping[str, Column], rows: int) -> bytes:
    """Return a message; a column that `values` lacks is null.

    A 32-bit difference column wraps around, as its sum does. Raises BatchFormatError for a null in a required column, a
    value of another type, or columns of different lengths.
    """
    nulls: list[int] = []
    buffers: list[bytes] = []
    for column in columns:
        found = values.get(column.name)
        count, parts = _written(column, [None] * rows if found is None else found, rows)
        nulls.append(count)
        buffers += parts
    body = [part + bytes(-len(part) % 8) for part in buffers]
    return b"".join((flatbuffer.write(rows, nulls, [len(part) for part in buffers]), *body))


def read(message: bytes, columns: Sequence[WireColumn], rows: int, *, arrays: bool) -> dict[str, Column]:
    """Return the columns of a message, differences undone; input may be hostile.

    Required numbers and truth values are numpy arrays with `arrays`, else `array.array`s and lists; every other column
    is a list in which None is null. Raises BatchFormatError unless the message holds exactly these columns and rows.
    """
    view = memoryview(message)
    metadata = flatbuffer.read(view)
    expected = sum(3 if column.type is FieldType.STRING else 2 for column in columns)
    if (metadata.rows, len(metadata.nulls), len(metadata.buffers)) != (rows, len(columns), expected):
        raise BatchFormatError(
            f"record batch: expected {rows} rows in {len(columns)} columns with {expected} buffers, found "
            f"{metadata.rows}, {len(metadata.nulls)} and {len(metadata.buffers)}"
        )
    body = view[metadata.body_at :]
    place = 0
    found: dict[str, Column] = {}
    for column, nulls in zip(columns, metadata.nulls, strict=True):
        taken = 3 if column.type is FieldType.STRING else 2
        parts = [_part(body, extent) for extent in metadata.buffers[place : place + taken]]
        found[column.name] = _read(column, metadata, nulls, parts, arrays)
        place += taken
    return found


def _written(column: WireColumn, values: Column, rows: int) -> tuple[int, tuple[bytes, ...]]:
    """Return how many nulls a column has, and its buffers."""
    if len(values) != rows:
        raise BatchFormatError(f"column {column.name}: expected {rows} values, found {len(values)}")
    nulls, validity = 0, b""
    if isinstance(values, (list, tuple)) and (nulls := values.count(None)):
        if column.required:
            raise BatchFormatError(f"column {column.name}: expected a value in every row, found {nulls} nulls")
        filler: Any = "" if column.type is FieldType.STRING else 0
        if nulls == rows:
            validity, values = bytes((rows + 7) // 8), [filler] * rows
        else:
            validity = _bitmap([value is not None for value in values])
            values = [filler if value is None else value for value in values]
    try:
        return nulls, (validity, *_data(column, values))
    except (TypeError, ValueError, OverflowError, AttributeError, UnicodeError) as error:
        raise BatchFormatError(f"column {column.name}: expected values of type {column.type.value}: {error}") from error


def _data(column: WireColumn, values: Any) -> tuple[bytes, ...]:
    if column.type is FieldType.STRING:
        if values and values.count(values[0]) == len(values):  # often so, and then a tenth of the work
            text = values[0].encode()
            ends = range(0, len(text) * len(values) + 1, len(text)) if text else [0] * (len(values) + 1)
            return array("i", ends).tobytes(), text * len(values)
        texts = list(map(str.encode, values))
        return array("i", accumulate(map(len, texts), initial=0)).tobytes(), b"".join(texts)
    if column.type is FieldType.BOOLEAN:
        return (_bitmap(values),)
    if hasattr(values, "dtype"):
        values = values.astype(CODES[column.type], copy=False)
        if column.difference and len(values):
            steps = values.copy()
            steps[1:] -= values[:-1]
            values = steps
        return (values.tobytes(),)
    code = CODES[column.type]
    if isinstance(values, range) and column.difference and len(values):  # numbers of rows that follow one another
        return (array(code, [values[0]]).tobytes() + array(code, [values.step]).tobytes() * (len(values) - 1),)
    if column.difference and len(values):
        bits = _BITS[column.type]
        values = [values[0], *(_wrapped(step, bits) for step in map(sub, values[1:], values))]
    return (array(code, values).tobytes(),)


def _wrapped(value: int, bits: int) -> int:
    half = 1 << bits - 1
    return value if -half <= value < half else (value + half) % (1 << bits) - half


def _bitmap(values: Any) -> bytes:
    """Return truth values as bits, the first in the lowest."""
    if hasattr(values, "dtype"):
        import numpy as np

        return np.packbits(values.astype(np.bool_, copy=False), bitorder="little").tobytes()
    # As the digits of one number: no step per value.
    digits = bytes(map(bool, values))[::-1].translate(_DIGITS)
    return int(digits or b"0", 2).to_bytes((len(values) + 7) // 8, "little")


def _bits(part: memoryview, rows: int) -> list[bool]:
    if rows == 0:
        return []
    number = int.from_bytes(part[: (rows + 7) // 8], "little")
    digits = f"{number & (1 << rows) - 1:0{rows}b}"
    return [digit == "1" for digit in reversed(digits)]


def _part(body: memoryview, extent: Extent) -> memoryview:
    return body[extent.offset : extent.offset + extent.size_bytes]


def _read(column: WireColumn, metadata: Metadata, nulls: int, parts: list[memoryview], arrays: bool) -> Column:
    rows = metadata.rows
    validity, *data = parts
    present: list[bool] | None = None
    if nulls:
        _expect(column, "validity", validity, (rows + 7) // 8)
        if nulls == rows and not column.required and not any(validity[: (rows + 7) // 8]):
            return [None] * rows
        present = _bits(validity, rows)
        if sum(present) != rows - nulls or column.required:
            raise BatchFormatError(f"column {column.name}: {nulls} nulls, required {column.required}, validity differs")
    if column.type is FieldType.STRING:
        values: Any = _texts(column, data, rows)
    elif column.type is FieldType.BOOLEAN:
        _expect(column, "values", data[0], (rows + 7) // 8)
        values = _truths(data[0], rows, arrays and column.required)
    else:
        width = struct.calcsize(CODES[column.type])
        _expect(column, "values", data[0], rows * width)
        values = _numbers(column, data[0][: rows * width], arrays)
        if not column.required:
            values = values.tolist()
    if present is not None:
        values = [value if there else None for value, there in zip(values, present, strict=True)]
    return values  # type: ignore[no-any-return]  # whatever the type of the column makes it


def _truths(part: memoryview, rows: int, arrays: bool) -> Column:
    if not arrays:
        return _bits(part, rows)
    import numpy as np

    return np.unpackbits(np.frombuffer(part, np.uint8), count=rows, bitorder="little").astype(np.bool_)


def _numbers(column: WireColumn, part: memoryview, arrays: bool) -> Any:
    code = CODES[column.type]
    if arrays:
        import numpy as np

        found = np.frombuffer(part, dtype=code)
        # An integer sum wraps around in its own width, as the differences did.
        return np.cumsum(found, dtype=code) if column.difference else found
    numbers = array(code, part.tobytes())
    if column.difference:
        bits = _BITS[column.type]
        numbers = array(code, accumulate(numbers, lambda total, step: _wrapped(total + step, bits)))
    return numbers


def _texts(column: WireColumn, data: list[memoryview], rows: int) -> list[str]:
    offsets, text = data
    if rows == 0:
        return []
    _expect(column, "offsets", offsets, 4 * (rows + 1))
    ends = array("i", offsets[: 4 * (rows + 1)].tobytes())
    if ends[0] < 0 or ends[-1] > len(text) or any(map(int.__gt__, ends, ends[1:])):
        raise BatchFormatError(f"column {column.name}: expected rising offsets within {len(text)} bytes of text")
    raw = text.tobytes()
    try:
        if raw.isascii():
            whole = raw.decode("ascii")
            return [whole[first:end] for first, end in pairwise(ends)]
        return [raw[first:end].decode() for first, end in pairwise(ends)]
    except UnicodeDecodeError as error:
        raise BatchFormatError(f"column {column.name}: expected UTF-8: {error}") from error


def _expect(column: WireColumn, what: str, part: memoryview, size_bytes: int) -> None:
    if len(part) < size_bytes:
        raise BatchFormatError(f"column {column.name}: expected {size_bytes} bytes of {what}, found {len(part)}")
