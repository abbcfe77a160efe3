"""Expectations asked of a whole table in SQL, and its answer evaluated here. Pure.

Great Expectations' own SQL for Trino is wrong in places, so the statements are ours: one that passes over the table
once with an aggregate for each expectation, and one more for each that needs groups or another table.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from lakehouse.quality.expectations import SEALED_AT, Expectation, Kind, Outcome, Scalar, closed

BACKSLASH_Z: Final = r"\z"  # the end of the text, to Trino's expressions
_GROUPED: Final = frozenset({Kind.UNIQUE, Kind.IDENTITY, Kind.REFERENCED})


class Statement(Struct, frozen=True):
    """SQL, and the expectations that its single row answers: `(rows, (values, failed or observed) for each)`."""

    sql: str
    answers: tuple[Expectation, ...]


def statements(table: str, expected: Sequence[Expectation]) -> tuple[Statement, ...]:
    """Return what to ask of a table, `catalog.namespace.name`."""
    simple = tuple(one for one in expected if one.kind not in _GROUPED)
    found = [Statement(_aggregates(table, simple), simple)] if simple else []
    return (*found, *(Statement(_grouped(table, one), (one,)) for one in expected if one.kind in _GROUPED))


def evaluate(statement: Statement, row: Sequence[Any]) -> tuple[Outcome, ...]:
    """Return what the single row of a statement's answer means."""
    rows = int(row[0])
    pairs = zip(statement.answers, row[1::2], row[2::2], strict=True)
    return tuple(_outcome(one, rows, values, found) for one, values, found in pairs)


def _outcome(one: Expectation, rows: int, values: int, found: Any) -> Outcome:
    if one.kind in (Kind.MEAN, Kind.ROW_COUNT):
        observed = None if found is None else float(found)
        met = observed is None or _within(observed, one)
        return Outcome(one, rows, 0 if met else rows, met, () if met else (f"found {observed:g}",))
    failed = int(found)
    met = values == 0 or (values - failed) / values >= one.mostly
    return Outcome(one, rows, failed, met)


def _within(observed: float, one: Expectation) -> bool:
    low, high = one.low, one.high
    return (low is None or observed >= float(low)) and (high is None or observed <= float(high))


def _aggregates(table: str, expected: Sequence[Expectation]) -> str:
    columns = [part for one in expected for part in (_values(one), _found(one))]
    return f"SELECT {', '.join(['count(*)', *columns])} FROM {_table(table)}"


def _values(one: Expectation) -> str:
    """How many values `mostly` is a share of."""
    return "count(*)" if one.kind in (Kind.NOT_NULL, Kind.ROW_COUNT) else f"count({_name(one.columns[0])})"


def _found(one: Expectation) -> str:
    column = _name(one.columns[0]) if one.columns else ""
    match one.kind:
        case Kind.NOT_NULL:
            return f"count_if({column} IS NULL)"
        case Kind.BETWEEN:
            return f"count_if({_outside(column, one)})"
        case Kind.AGE:
            age = f"(to_unixtime({_name(SEALED_AT)}) - to_unixtime({column}))"
            return f"count_if({_outside(age, one)})"
        case Kind.LENGTHS:
            return f"count_if({_outside(f'length({column})', one)})"
        case Kind.IN_SET:
            return f"count_if({column} NOT IN ({', '.join(map(_literal, one.values))}))"
        case Kind.PATTERN:
            return f"count_if(NOT regexp_like({column}, {_text(closed(one.pattern, BACKSLASH_Z))}))"
        case Kind.MEAN:
            return f"avg(CAST({column} AS double))"
    return "count(*)"


def _outside(value: str, one: Expectation) -> str:
    """NaN is neither less nor more than a bound, and outside of it all the same."""
    low = None if one.low is None else f"{value} >= {_literal(one.low, moment=True)}"
    high = None if one.high is None else f"{value} <= {_literal(one.high, moment=True)}"
    return f"NOT ({' AND '.join(part for part in (low, high) if part is not None)})"


def _grouped(table: str, one: Expectation) -> str:
    names = ", ".join(map(_name, one.columns))
    if one.target is not None:
        (other, column), own = one.target, _name(one.columns[0])
        known = f"SELECT {_name(column)} FROM {_table(other)} WHERE {_name(column)} IS NOT NULL"
        return f"SELECT count(*), count({own}), count_if({own} NOT IN ({known})) FROM {_table(table)}"
    present = " AND ".join(f"{_name(column)} IS NOT NULL" for column in one.columns)
    groups = f"SELECT count(*) AS n FROM {_table(table)} WHERE {present} GROUP BY {names}"
    return f"SELECT coalesce(sum(n), 0), coalesce(sum(n), 0), coalesce(sum(n) FILTER (WHERE n > 1), 0) FROM ({groups})"


def _table(name: str) -> str:
    return ".".join(map(_name, name.split(".")))


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _literal(value: Scalar, moment: bool = False) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, str):
        return f"from_iso8601_timestamp_nanos({_text(value)})" if moment else _text(value)
    # Written as a double whatever it is: a decimal literal would be compared otherwise with a double column.
    return str(value) if isinstance(value, int) else f"{value!r}E0" if "e" not in repr(value) else repr(value)
