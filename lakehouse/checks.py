"""Row checks of a contract, vectorised. Pure.

Each check looks at an aggregate first and builds a mask only when it fails: sound rows cost a few ns a column. A row's
verdict follows from its own micro-batch alone, never from the clock or from what it happens to be read together with:
a round that is read again after a crash must come to the same end.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from contracts.contract import FLOATS, INTEGERS, Contract, Field, FieldType
from contracts.errors import ContractError

# Years 1 to 9999 in microseconds: outside of them readers disagree or fail on the whole file.
TIME_US_MIN: Final = -62_135_596_800_000_000
TIME_US_MAX: Final = 253_402_300_799_999_999
SECOND_US: Final = 1_000_000

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]
Failed = Iterator[tuple[str, Mask]]


class Batches(Struct, frozen=True):
    """Which micro-batch each row is of, and when each batch was sealed, in microseconds since 1970."""

    of_row: Index
    sealed_us: Index


def refusals(rows: pa.Table, contract: Contract, batches: Batches | None = None) -> tuple[Mask, list[str]]:
    """Check rows in payload types. Returns which are refused, and for each refused row the rule `field.check`.

    A row is refused once, by the first check that fails in the order of the contract's fields. Without `batches` all
    rows are of one batch whose sealing is unknown.
    """
    refused = np.zeros(rows.num_rows, dtype=np.bool_)
    rule_of_row = np.zeros(rows.num_rows, dtype=np.int32)
    rules: list[str] = []
    for field in contract.fields:
        for check, bad in _failed(rows.column(field.name), field, batches):
            fresh = bad & ~refused
            rule_of_row[fresh] = len(rules)
            rules.append(f"{field.name}.{check}")
            refused |= bad
    return refused, [rules[at] for at in rule_of_row[refused]]


def hints(rows: pa.Table, contract: Contract) -> dict[str, int]:
    """Return how many rows are outside of a published list that is a hint, by rule; rules that all rows keep are not
    named. References to another contract's field are for who can read that table.
    """
    found: dict[str, int] = {}
    for field in contract.fields:
        if field.checks.known_values is not None:
            unknown = _outside_list(rows.column(field.name), field.checks.known_values)
            if unknown is not None:
                found[f"{field.name}.known_values"] = int(unknown.sum())
    return found


def require_checkable(contract: Contract) -> None:
    """Raise ContractError when a pattern is none that rows could be checked with."""
    for field in contract.fields:
        if field.checks.pattern is not None:
            try:
                pc.match_substring_regex(pa.array([""]), field.checks.pattern)
            except pa.ArrowInvalid as error:
                raise ContractError(
                    f"contract {contract.id} {contract.version}: field {field.name!r}: pattern "
                    f"{field.checks.pattern!r}: expected RE2: {error}: publish a corrected version"
                ) from error


def _failed(column: pa.ChunkedArray, field: Field, batches: Batches | None) -> Failed:
    if field.required and column.null_count:
        yield "required", _mask(pc.is_null(column))
    if field.type in FLOATS:
        yield from _floats(column, field)
    if field.type in INTEGERS:
        yield from _integers(column, field)
    if field.type is FieldType.STRING:
        yield from _text(column, field)
    if field.checks.unique:
        yield from _repeated(column, batches)
    if batches is not None and field.type is FieldType.TIMESTAMPTZ:
        yield from _untimely(column, field, batches)


def _floats(column: pa.ChunkedArray, field: Field) -> Failed:
    least, most = _extremes(column)
    # A NaN is carried through to both of them, so the two say whether all values are finite.
    if not (math.isfinite(least) and math.isfinite(most)):
        yield "finite", ~_mask(pc.fill_null(pc.is_finite(column), True))
        bounds = pc.min_max(column)
        least, most = (math.nan if bounds[end].as_py() is None else bounds[end].as_py() for end in ("min", "max"))
    yield from _outside(column, field, (least, most), (field.checks.minimum, field.checks.maximum))


def _extremes(column: pa.ChunkedArray) -> tuple[float, float]:
    """Return least and greatest value that is not null, (0, 0) when there is none; five times as fast as Arrow's."""
    chunks = [np.asarray(chunk) for chunk in (column.drop_null() if column.null_count else column).chunks if len(chunk)]
    if not chunks:
        return 0.0, 0.0
    return float(np.min([chunk.min() for chunk in chunks])), float(np.max([chunk.max() for chunk in chunks]))


def _integers(column: pa.ChunkedArray, field: Field) -> Failed:
    low, high = field.checks.minimum, field.checks.maximum
    if field.type is FieldType.TIMESTAMPTZ:
        low = TIME_US_MIN if low is None else low
        high = TIME_US_MAX if high is None else high
    if low is None and high is None:
        return
    bounds = pc.min_max(column)
    yield from _outside(column, field, (bounds["min"].as_py(), bounds["max"].as_py()), (low, high))


def _outside(
    column: pa.ChunkedArray,
    field: Field,
    found: tuple[float | None, float | None],
    bounds: tuple[float | None, float | None],
) -> Failed:
    (least, most), (low, high) = found, bounds
    if column.null_count == len(column):
        return
    if low is not None and least is not None and not least >= low:
        yield "minimum", _mask(pc.fill_null(pc.less(column, _bound(low, field, math.ceil)), False))
    if high is not None and most is not None and not most <= high:
        yield "maximum", _mask(pc.fill_null(pc.greater(column, _bound(high, field, math.floor)), False))


def _bound(value: float, field: Field, rounded: Callable[[float], int]) -> pa.Scalar:
    """An integer column is compared with an integer, or values beyond 2^53 would be compared inexactly."""
    return pa.scalar(rounded(value), pa.int64()) if field.type in INTEGERS else pa.scalar(value, pa.float64())


def _text(column: pa.ChunkedArray, field: Field) -> Failed:
    checks = field.checks
    # A text has never more characters than bytes, and those need no look at the text itself.
    if checks.max_length is not None and (pc.max(pc.binary_length(column)).as_py() or 0) > checks.max_length:
        too_long = pc.greater(pc.utf8_length(column), checks.max_length)
        if pc.any(too_long).as_py():
            yield "max_length", _mask(pc.fill_null(too_long, False))
    if checks.valid_values is not None:
        invalid = _outside_list(column, checks.valid_values)
        if invalid is not None:
            yield "valid_values", invalid
    if checks.pattern is not None:
        matches = pc.match_substring_regex(column, checks.pattern)
        if not _all(matches):
            yield "pattern", ~_mask(pc.fill_null(matches, True))


def _outside_list(column: pa.ChunkedArray, values: tuple[str, ...]) -> Mask | None:
    valid = pc.is_in(column, pa.array([*values, None], pa.string()))
    return None if _all(valid) else ~_mask(valid)


def _repeated(column: pa.ChunkedArray, batches: Batches | None) -> Failed:
    """All but the first row with a value within its batch."""
    present = column.drop_null()
    if len(present) < 2 or _ascends(present) or pc.count_distinct(present).as_py() == len(present):
        return
    encoded = column.combine_chunks().dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64)
    owner = np.zeros(len(codes), dtype=np.int64) if batches is None else batches.of_row
    keys = owner * (len(encoded.dictionary) + 1) + codes
    _, first = np.unique(keys, return_index=True)
    bad = np.ones(len(codes), dtype=np.bool_)
    bad[first] = False
    bad &= codes >= 0
    if bad.any():
        yield "unique", bad


def _ascends(column: pa.ChunkedArray) -> bool:
    """Counters and times mostly do, which is seen without hashing them."""
    if not pa.types.is_integer(column.type):
        return False
    values = np.asarray(column.combine_chunks())
    return bool((values[1:] > values[:-1]).all())


def _untimely(column: pa.ChunkedArray, field: Field, batches: Batches) -> Failed:
    age_s, ahead_s = field.checks.age_max_s, field.checks.ahead_max_s
    if (age_s is None and ahead_s is None) or column.null_count == len(column):
        return
    bounds = pc.min_max(column)
    sealed_us = batches.sealed_us[np.unique(batches.of_row)]
    sealed_of_row: Index | None = None
    if age_s is not None and bounds["min"].as_py() < int(sealed_us.max()) - age_s * SECOND_US:
        sealed_of_row = batches.sealed_us[batches.of_row]
        bad = _mask(pc.fill_null(pc.less(column, pa.array(sealed_of_row - age_s * SECOND_US)), False))
        if bad.any():
            yield "age_max_s", bad
    if ahead_s is not None and bounds["max"].as_py() > int(sealed_us.min()) + ahead_s * SECOND_US:
        sealed_of_row = batches.sealed_us[batches.of_row] if sealed_of_row is None else sealed_of_row
        bad = _mask(pc.fill_null(pc.greater(column, pa.array(sealed_of_row + ahead_s * SECOND_US)), False))
        if bad.any():
            yield "ahead_max_s", bad


def _all(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(column).as_py() in (True, None))


def _mask(column: pa.ChunkedArray) -> Mask:
    mask: Mask = column.combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_)
    return mask
