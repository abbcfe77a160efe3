"""Row checks of a contract, vectorised. Pure.

Each check looks at an aggregate first and builds a mask only when it fails: sound rows cost a few ns a column.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.contract import FLOATS, INTEGERS, Contract, Field, FieldType

# Years 1 to 9999 in microseconds: outside of them readers disagree or fail on the whole file.
TIME_US_MIN: Final = -62_135_596_800_000_000
TIME_US_MAX: Final = 253_402_300_799_999_999

Mask = npt.NDArray[np.bool_]


def refusals(rows: pa.Table, contract: Contract) -> tuple[Mask, list[str]]:
    """Check rows in payload types. Returns which are refused, and for each refused row the rule `field.check`.

    A row is refused once, by the first check that fails in the order of the contract's fields.
    """
    refused = np.zeros(rows.num_rows, dtype=np.bool_)
    rule_of_row = np.zeros(rows.num_rows, dtype=np.int32)
    rules: list[str] = []
    for field in contract.fields:
        for check, bad in _failed(rows.column(field.name), field):
            fresh = bad & ~refused
            rule_of_row[fresh] = len(rules)
            rules.append(f"{field.name}.{check}")
            refused |= bad
    return refused, [rules[at] for at in rule_of_row[refused]]


def _failed(column: pa.ChunkedArray, field: Field) -> Iterator[tuple[str, Mask]]:
    if field.required and column.null_count:
        yield "required", _mask(pc.is_null(column))
    if field.type in FLOATS:
        finite = pc.is_finite(column)
        if not _all(finite):
            yield "finite", ~_mask(pc.fill_null(finite, True))
    if field.type in FLOATS or field.type in INTEGERS:
        yield from _outside(column, field)
    if field.type is FieldType.STRING:
        yield from _text(column, field)


def _outside(column: pa.ChunkedArray, field: Field) -> Iterator[tuple[str, Mask]]:
    low, high = field.checks.minimum, field.checks.maximum
    if field.type is FieldType.TIMESTAMPTZ:
        low = TIME_US_MIN if low is None else low
        high = TIME_US_MAX if high is None else high
    if low is None and high is None:
        return
    bounds = pc.min_max(column)
    least, most = bounds["min"].as_py(), bounds["max"].as_py()
    if low is not None and least is not None and least < low:
        yield "minimum", _mask(pc.fill_null(pc.less(column, _bound(low, field, math.ceil)), False))
    if high is not None and most is not None and most > high:
        yield "maximum", _mask(pc.fill_null(pc.greater(column, _bound(high, field, math.floor)), False))


def _bound(value: float, field: Field, rounded: Callable[[float], int]) -> pa.Scalar:
    """An integer column is compared with an integer, or values beyond 2^53 would be compared inexactly."""
    return pa.scalar(rounded(value), pa.int64()) if field.type in INTEGERS else pa.scalar(value, pa.float64())


def _text(column: pa.ChunkedArray, field: Field) -> Iterator[tuple[str, Mask]]:
    if field.checks.max_length is not None:
        too_long = pc.greater(pc.utf8_length(column), field.checks.max_length)
        if pc.any(too_long).as_py():
            yield "max_length", _mask(pc.fill_null(too_long, False))
    if field.checks.valid_values is not None:
        valid = pc.is_in(column, pa.array([*field.checks.valid_values, None], pa.string()))
        if not _all(valid):
            yield "valid_values", ~_mask(valid)


def _all(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(column).as_py() in (True, None))


def _mask(column: pa.ChunkedArray) -> Mask:
    mask: Mask = column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
