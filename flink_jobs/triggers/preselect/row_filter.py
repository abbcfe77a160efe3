"""One vectorised filter per contract: the OR of every live rule's conditions on it.

It may pass too much and never too little: whatever Arrow could judge otherwise than the evaluator does (a field that
the contract does not have, a value of another kind, a number that the column's type cannot hold) lets all rows pass.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from contracts.contract import FLOATS, INTEGERS, Contract, FieldType
from contracts.rules import Comparison, Condition, Rule, Scalar, conditions, fields_read
from flink_jobs.triggers.preselect.words import Words

_ORDERINGS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": pc.equal,
    "ne": pc.not_equal,
    "lt": pc.less,
    "le": pc.less_equal,
    "gt": pc.greater,
    "ge": pc.greater_equal,
}
# Whole numbers up to here are exact as 64-bit floats, so that comparing as either gives the same answer.
EXACT_WHOLE_MAX: Final = 2**53


class RowFilter(Struct, frozen=True):
    """What some live rule may want of one contract: conditions, the fields that they read, the words to be found."""

    contract: Contract
    conditions: tuple[Condition, ...]
    fields: tuple[str, ...]
    words: Mapping[Comparison, Words]


def row_filter(contract: Contract, rules: Iterable[Rule]) -> RowFilter | None:
    """Return the filter of all rules that listen to a contract, None when none does."""
    listening = [rule for rule in rules if rule.subject == contract.subject_kind]
    wanted = dict.fromkeys(
        condition for rule in listening for condition in conditions(rule) if condition.contract == contract.id
    )
    if not wanted:
        return None
    known = {field.name for field in contract.fields}
    fields = sorted(known & {f for rule in listening for f in fields_read(rule, contract.id)})
    words = {
        comparison: Words(value for value in comparison.value if isinstance(value, str))
        for condition in wanted
        for comparison in condition.where
        if comparison.op == "contains_any" and isinstance(comparison.value, tuple)
    }
    return RowFilter(contract, tuple(wanted), tuple(fields), words)


def passing(row_filter: RowFilter, table: pa.Table) -> pa.ChunkedArray:
    """Return a mask [rows] bool without nulls: False only where no condition can hold."""
    everything = pa.chunked_array([pa.repeat(pa.scalar(True), table.num_rows)])
    known: dict[Comparison, pa.ChunkedArray | None] = {}
    mask: pa.ChunkedArray | None = None
    for condition in row_filter.conditions:
        one: pa.ChunkedArray | None = None
        for comparison in condition.where:
            if comparison not in known:
                known[comparison] = _holds(row_filter, comparison, table)
            part = known[comparison]
            if part is not None:
                one = part if one is None else pc.and_(one, part)
        if one is None:
            return everything
        mask = one if mask is None else pc.or_(mask, one)
    return everything if mask is None else mask


def _holds(row_filter: RowFilter, comparison: Comparison, table: pa.Table) -> pa.ChunkedArray | None:
    """Return where a comparison may hold; None when that cannot be told from Arrow, so that every row may."""
    field = next((field for field in row_filter.contract.fields if field.name == comparison.field), None)
    if field is None:
        return None
    column, value = table.column(field.name), comparison.value
    if comparison.op == "contains_none":
        return None  # what the words are found in too often would be missing here
    if comparison in row_filter.words:
        found = row_filter.words[comparison].within(column) if field.type is FieldType.STRING else None
        return None if found is None else pa.chunked_array([found])
    if isinstance(value, tuple):
        if not all(_comparable(field.type, entry) for entry in value):
            return None
        parts = [_ordering("eq", column, entry) for entry in value]
        return _any(parts, column)
    if not _comparable(field.type, value):
        return None
    if comparison.op == "contains":
        if not isinstance(value, str):
            return None
        return pc.fill_null(pc.match_substring(column, value), False)
    return _ordering(comparison.op, column, value) if comparison.op in _ORDERINGS else None


def _comparable(kind: FieldType, value: Scalar) -> bool:
    """Say whether Arrow compares a column of this type with the value exactly as Python would."""
    if isinstance(value, bool):
        return kind is FieldType.BOOLEAN
    if isinstance(value, str):
        return kind is FieldType.STRING
    if kind in INTEGERS:
        return isinstance(value, int) and -(2**63) <= value < 2**63
    return kind in FLOATS and math.isfinite(value) and (isinstance(value, float) or abs(value) <= EXACT_WHOLE_MAX)


def _ordering(op: str, column: pa.ChunkedArray, value: Scalar) -> pa.ChunkedArray:
    """Compare in the wider type of each kind, as a float32 column must not round the rule's number."""
    if isinstance(value, bool | str):
        return pc.fill_null(_ORDERINGS[op](column, pa.scalar(value)), False)
    wide = pa.float64() if pa.types.is_floating(column.type) else pa.int64()
    return pc.fill_null(_ORDERINGS[op](column.cast(wide), pa.scalar(value, wide)), False)


def _any(parts: Sequence[pa.ChunkedArray], column: pa.ChunkedArray) -> pa.ChunkedArray:
    mask = pa.chunked_array([pa.repeat(pa.scalar(False), len(column))])
    for part in parts:
        mask = pc.or_(mask, part)
    return mask
