"""What a table that follows its contract must hold, worked out one value at a time from dictionaries by field id."""

import math
import re
from typing import Any

from contracts.contract import Contract, Field, FieldType

WHOLE = frozenset({FieldType.INT, FieldType.LONG})
REAL = frozenset({FieldType.FLOAT, FieldType.DOUBLE})
LIMITS = {FieldType.INT: 2**31, FieldType.LONG: 2**63}
Meaning = tuple[str, str | None]  # kind of type, unit
Row = dict[int, Any]  # field id -> value as it was sent


def meaning(field: Field) -> Meaning:
    kind = "whole" if field.type in WHOLE else "real" if field.type in REAL else field.type.value
    return kind, field.unit if kind in ("whole", "real") else None


def converted(value: Any, sent: Field, wanted: Field) -> Any:
    """Return a value of one meaning in another, None when it cannot be said."""
    if value is None or meaning(sent) == meaning(wanted):
        return value
    factor, offset = 1.0, 0.0
    own, now = meaning(sent)[1], meaning(wanted)[1]
    if own is not None and now is not None and own != now:
        stated = [c for c in wanted.conversions if c.unit == own]
        if not stated:
            return None
        factor, offset = stated[0].factor, stated[0].offset
    kind = meaning(wanted)[0]
    if kind in ("whole", "real"):
        number = _number(value, kind)
        return None if number is None else _fitted(number, factor, offset, wanted)
    if kind == "string" and isinstance(value, bool):
        return "true" if value else "false"
    if kind == "string" and isinstance(value, int | float):
        return value
    if kind == "boolean" and isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return None


def _number(value: Any, kind: str) -> int | float | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return value if isinstance(value, int | float) else None
    form = r"[+-]?\d{1,18}" if kind == "whole" else r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?"
    if re.fullmatch(form, value.strip(), re.ASCII) is None:
        return None
    return int(value) if kind == "whole" else float(value)


def _fitted(number: int | float, factor: float, offset: float, wanted: Field) -> int | float | None:
    measured = (factor, offset) != (1.0, 0.0)
    if measured:
        if isinstance(number, int) and abs(number) > 2**53:
            return None
        number = number * factor + offset
    if wanted.type in REAL:
        return float(number) if math.isfinite(number) else None
    if isinstance(number, float):
        if not math.isfinite(number) or abs(number) > 2**53 or (number != math.floor(number) and not measured):
            return None
        number = round(number)
    limit = LIMITS[wanted.type]
    return number if -limit <= number < limit else None


def expected(row: Row, sent: Contract, landed: Contract, column: Meaning, field_id: int) -> Any:
    """Return what a field's column of some meaning must hold of a row that arrived while `landed` was the newest."""
    fields, newest = {f.id: f for f in sent.fields}, {f.id: f for f in landed.fields}
    if field_id not in fields or field_id not in newest:
        return None
    own, now = fields[field_id], newest[field_id]
    if column == meaning(own):
        return row.get(field_id)
    return converted(row.get(field_id), own, now) if column == meaning(now) else None
