"""Values of an older meaning of a field as values of the newest, where they can be. Pure, vectorised.

| from       | to         | becomes                                                                       |
| ---------- | ---------- | ----------------------------------------------------------------------------- |
| a number   | a number   | converted by the stated factor; null when it does not fit                     |
| text       | a number   | what it says in decimal, spaces around it ignored; else null                  |
| a number   | text       | its shortest decimal form                                                     |
| text       | a boolean  | `true` and `false` in any case; else null                                     |
| a boolean  | text       | `true`, `false`                                                               |
| all others |            | null                                                                          |

A whole number comes from a fraction only when it is whole, unless a factor was applied: what is measured is rounded.
Between two units without a conversion nothing can be said: null.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from contracts.contract import INTEGERS, Conversion, FieldType
from contracts.evolution import family
from lakehouse.layout import Column
from lakehouse.schema import ARROW_TYPES

WHOLE: Final = r"^[+-]?[0-9]{1,18}$"  # 18 digits always fit 64 bits
DECIMAL: Final = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
# Beyond it not every whole number is a double; a conversion goes by doubles.
EXACT_MAX: Final = 2.0**53
_RANGES: Final = {FieldType.INT: (-(2**31), 2**31 - 1), FieldType.LONG: (-(2**63), 2**63 - 1)}
_SAME: Final = Conversion("", 1.0)


def upcast(values: pa.ChunkedArray, own: Column, newest: Column) -> pa.ChunkedArray:
    """Return values of the column `own` as values of `newest`; null where there is none."""
    target = ARROW_TYPES[newest.type]
    conversion = _conversion(own, newest)
    source, wanted = family(own.type), family(newest.type)
    numbers = (FieldType.LONG, FieldType.DOUBLE)
    if conversion is None:
        return _nulls(values, target)
    if wanted in numbers:
        if source is FieldType.STRING:
            values = _parsed(values, wanted)
        elif source not in numbers:
            return _nulls(values, target)
        return _fitting(_converted(values, conversion, wanted), newest.type)
    if wanted is FieldType.STRING and source in numbers:
        return _converted(values, conversion, source).cast(target)
    if wanted is FieldType.STRING and source is FieldType.BOOLEAN:
        return values.cast(target)
    if wanted is FieldType.BOOLEAN and source is FieldType.STRING:
        return _truth(values)
    return _nulls(values, target)


def _conversion(own: Column, newest: Column) -> Conversion | None:
    if own.unit is None or newest.unit is None or own.unit == newest.unit:
        return _SAME
    return next((conversion for conversion in newest.conversions if conversion.unit == own.unit), None)


def _parsed(texts: pa.ChunkedArray, wanted: FieldType) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(texts)
    said = pc.match_substring_regex(trimmed, WHOLE if wanted is FieldType.LONG else DECIMAL)
    # Arrow's parser knows no plus sign.
    plain = pc.utf8_ltrim(pc.if_else(said, trimmed, pa.scalar(None, texts.type)), characters="+")
    return plain.cast(ARROW_TYPES[wanted])


def _converted(values: pa.ChunkedArray, conversion: Conversion, wanted: FieldType) -> pa.ChunkedArray:
    if conversion.factor == 1 and conversion.offset == 0:
        return values
    whole = values.type in (pa.int32(), pa.int64())
    exact = values.cast(pa.float64(), safe=False)
    if whole:
        exact = _only(pc.less_equal(pc.abs(exact), EXACT_MAX), exact)
    found = pc.add(pc.multiply(exact, conversion.factor), conversion.offset)
    if wanted is not FieldType.LONG:
        return found
    return _only(pc.less_equal(pc.abs(found), EXACT_MAX), pc.round(found, round_mode="half_to_even"))


def _fitting(values: pa.ChunkedArray, wanted: FieldType) -> pa.ChunkedArray:
    """Return numbers in the type of a column, null where one does not fit."""
    target = ARROW_TYPES[wanted]
    if wanted not in INTEGERS:
        found = values.cast(target, safe=False)
        return _only(pc.is_finite(found), found)
    if pa.types.is_floating(values.type):
        whole = pc.and_(pc.equal(pc.floor(values), values), pc.less_equal(pc.abs(values), EXACT_MAX))
        values = _only(whole, values).cast(pa.int64())
    low, high = _RANGES[wanted]
    fits = pc.and_(
        pc.greater_equal(values, pa.scalar(low, pa.int64())), pc.less_equal(values, pa.scalar(high, pa.int64()))
    )
    return _only(fits, values).cast(target)


def _truth(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    lowered = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    known = pc.is_in(lowered, pa.array(["true", "false"]))
    return _only(known, pc.equal(lowered, "true"))


def _only(where: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(where, values, pa.scalar(None, values.type))


def _nulls(values: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(len(values), target)])
