"""What the entry of a data file says about the values in it. Pure."""

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.types import PrimitiveType


def may_contain_text(file: DataFile, field_id: int, text: str) -> bool:
    """Say whether a string column may hold a value. Bounds may be cut; they then still enclose what they are of."""
    lower, upper = (file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id)
    value = text.encode()
    return (lower is None or lower <= value) and (upper is None or value <= upper)


def names_text(file: DataFile, field_id: int, text: str) -> bool:
    """Say whether a bound of a string column is the value itself."""
    value = text.encode()
    return value in ((file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id))


def may_be_below(file: DataFile, field_id: int, kind: PrimitiveType, limit: int) -> bool:
    """Say whether an integer or time column may hold a value below a limit, or a null."""
    lower = (file.lower_bounds or {}).get(field_id)
    return lower is None or _number(kind, lower) < limit or _may_be_null(file, field_id)


def is_below(file: DataFile, field_id: int, kind: PrimitiveType, limit: int) -> bool:
    """Say whether every row of an integer or time column has a value below a limit."""
    upper = (file.upper_bounds or {}).get(field_id)
    return upper is not None and _number(kind, upper) < limit and not _may_be_null(file, field_id)


def _may_be_null(file: DataFile, field_id: int) -> bool:
    return (file.null_value_counts or {}).get(field_id, 1) > 0


def _number(kind: PrimitiveType, bound: bytes) -> int:
    found: int = from_bytes(kind, bound)  # type: ignore[assignment]
    return found
