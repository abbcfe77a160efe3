"""Why an event fails its contract: the slow, explicit check of one line that the fast one refused."""

import json
import math
from datetime import datetime
from typing import Any, Final

from contracts.contract import FLOATS, Contract, Field, FieldType

EVENT_BYTES_MAX: Final = 65_536  # bytes; a row of it fits into one micro-batch of 131,072 bytes however badly it packs
REFUSED_JSON: Final = "event.json"
REFUSED_SIZE: Final = "event.max_bytes"
_INT_MAX: Final = {FieldType.INT: 2**31 - 1, FieldType.LONG: 2**63 - 1}


def refusal(contract: Contract, line: bytes, *, lax: bool = False) -> str:
    """Return `field.check` for the contract's first field that fails; `event.json` when none can be named.

    `lax` is how text columns are read: a number or a time may stand in quotes.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return REFUSED_JSON
    if not isinstance(event, dict):
        return REFUSED_JSON
    for field in contract.fields:
        failed = _failed(field, event.get(field.name), lax=lax)
        if failed is not None:
            return f"{field.name}.{failed}"
    return REFUSED_JSON


def _failed(field: Field, value: Any, *, lax: bool) -> str | None:
    if value is None:
        return "required" if field.required else None
    if lax and isinstance(value, str):
        value = _unquoted(field, value)
    if field.type is FieldType.STRING:
        return _failed_text(field, value)
    if field.type is FieldType.BOOLEAN:
        return None if isinstance(value, bool) else "type"
    if field.type is FieldType.TIMESTAMPTZ:
        return None if _is_moment(value) or (lax and isinstance(value, int | float)) else "type"
    if field.type in FLOATS:
        return _failed_float(field, value)
    if isinstance(value, float) and not math.isfinite(value):
        return "finite"
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or not -_INT_MAX[field.type] - 1 <= value <= _INT_MAX[field.type]
    ):
        return "type"
    return _failed_range(field, value)


def _failed_text(field: Field, value: Any) -> str | None:
    if not isinstance(value, str):
        return "type"
    if field.checks.valid_values is not None:
        return None if value in field.checks.valid_values else "valid_values"
    if field.checks.max_length is not None and len(value) > field.checks.max_length:
        return "max_length"
    return None


def _failed_float(field: Field, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "type"
    try:
        number = float(value)
    except OverflowError:
        return "finite"
    return _failed_range(field, number) if math.isfinite(number) else "finite"


def _failed_range(field: Field, value: float) -> str | None:
    if field.checks.minimum is not None and value < field.checks.minimum:
        return "minimum"
    if field.checks.maximum is not None and value > field.checks.maximum:
        return "maximum"
    return None


def _is_moment(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _unquoted(field: Field, value: str) -> Any:
    if field.type is FieldType.BOOLEAN:
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    if field.type in FLOATS or field.type in _INT_MAX:
        try:
            return int(value) if field.type in _INT_MAX else float(value)
        except ValueError:
            try:
                number = float(value)
            except ValueError:
                return value
            return number
    return value
