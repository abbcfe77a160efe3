"""A refused row as text that a person can read and that gives the row back bit for bit. Pure.

The text is JSON with the payload's columns. JSON has no word for NaN and infinities: they are written as text, a NaN
with its bits when they are not the usual ones. Everything else JSON carries exactly: integers of 64 bits, floats by
their shortest digits, all of Unicode. The types are the contract's: text in a field of numbers cannot be mistaken.
"""

import datetime as dt
import math
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.contract import FLOATS, SEQ_COLUMN, Contract, Field, FieldType
from contracts.malformed import MALFORMED
from lakehouse.errors import OriginalError
from lakehouse.schema import wire_schema

EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_BITS: Final[dict[FieldType, str]] = {FieldType.FLOAT: "<u4", FieldType.DOUBLE: "<u8"}
_FLOATS: Final[dict[FieldType, str]] = {FieldType.FLOAT: "<f4", FieldType.DOUBLE: "<f8"}
_USUAL_NAN: Final = {FieldType.FLOAT: 0x7FC00000, FieldType.DOUBLE: 0x7FF8000000000000}


def texts(rows: pa.Table, contract: Contract) -> list[str]:
    """Return each row, in payload types, as text."""
    shown = rows.to_pylist()
    for field in contract.fields:
        if field.type in FLOATS:
            _show_not_finite(rows.column(field.name), field, shown)
    return [msgspec.json.encode(row).decode() for row in shown]


def row_of(text: str, contract: Contract) -> pa.Table:
    """Return the row of a text that `texts` made with this contract. Raises OriginalError."""
    values = _object(text)
    names = [SEQ_COLUMN, *(field.name for field in contract.fields)]
    if values.keys() != set(names):
        raise OriginalError(f"row of {contract.id} {contract.version}: expected {names}, found {sorted(values)}")
    return _table(values, contract)


def row_of_device(text: str, seq: int, contract: Contract) -> pa.Table:
    """Return the event of a line that a device refused, read by a contract that it may fit by now.

    Moments are ISO 8601 with their zone, as devices take them; fields that the contract does not name are ignored.
    Raises OriginalError.
    """
    found = _object(text)
    values: dict[str, Any] = {SEQ_COLUMN: seq}
    for field in contract.fields:
        value = found.get(field.name)
        if field.type is FieldType.TIMESTAMPTZ and isinstance(value, str):
            value = _micros(field, value)
        values[field.name] = value
    return _table(values, contract)


def _show_not_finite(column: pa.ChunkedArray, field: Field, shown: list[dict[str, Any]]) -> None:
    numbers = np.asarray(column.combine_chunks().fill_null(0.0))
    if np.isfinite(numbers).all():
        return
    bits = numbers.view(_BITS[field.type])
    for at in np.flatnonzero(~np.isfinite(numbers)).tolist():
        usual = not np.isnan(numbers[at]) or bits[at] == _USUAL_NAN[field.type]
        shown[at][field.name] = str(float(numbers[at])) if usual else f"nan:{bits[at]:x}"


def _object(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text, type=dict[str, Any])
    except MALFORMED as error:
        raise OriginalError(f"original {text[:60]!r}: expected one JSON object: {error}") from error
    return found


def _table(values: dict[str, Any], contract: Contract) -> pa.Table:
    schema = wire_schema(contract)
    try:
        arrays = [pa.array([values[SEQ_COLUMN]], schema.field(SEQ_COLUMN).type)]
        arrays += [_array(values[field.name], field, schema.field(field.name).type) for field in contract.fields]
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise OriginalError(f"row of {contract.id} {contract.version}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(value: Any, field: Field, kind: pa.DataType) -> pa.Array:
    if field.type in FLOATS and isinstance(value, str):
        return pa.array(_not_finite(value, field), kind)
    # Arrow would take a truth value for a number and a whole float for an integer.
    fits = {bool: FieldType.BOOLEAN, str: FieldType.STRING}.get(type(value), field.type)
    if fits is not field.type or (isinstance(value, float) and field.type not in FLOATS):
        raise OriginalError(f"field {field.name}: expected {field.type.value}, found {value!r}")
    return pa.array([float(value) if field.type in FLOATS and value is not None else value], kind)


def _not_finite(text: str, field: Field) -> npt.NDArray[Any]:
    word, _, bits = text.partition(":")
    if bits:
        return np.array([int(bits, 16)], _BITS[field.type]).view(_FLOATS[field.type])
    value = float(word)
    if math.isfinite(value):
        raise OriginalError(f"field {field.name}: expected a number, found the text {text!r}")
    return np.array([value], _FLOATS[field.type])


def _micros(field: Field, text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise OriginalError(f"field {field.name}: expected an ISO 8601 time: {error}") from error
    if moment.tzinfo is None:
        raise OriginalError(f"field {field.name}: expected a time with its zone, found {text!r}")
    return (moment - EPOCH) // dt.timedelta(microseconds=1)
