"""Conditions of edge rules over a chunk of events at once: one truth value per event.

`edge_agent.lite.conditions` says the same without numpy.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import repeat
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.contract import Contract, Field, FieldType
from contracts.edge_rules import (
    AllOf,
    AnyOf,
    Between,
    Compare,
    Condition,
    ContainsAny,
    IsNull,
    Not,
    OneOf,
    Scalar,
    constant,
    contains_any,
    normalised,
)
from edge_agent.core.events import Column
from edge_agent.core.filter.repeats import shortened

Mask: TypeAlias = NDArray[np.bool_]

EQUALITIES_MAX: Final = 8  # values; up to so many, comparing with each is faster than sorting for numpy's isin
_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_NUMPY: Final[dict[FieldType, Any]] = {
    FieldType.INT: np.int64,
    FieldType.LONG: np.int64,
    FieldType.TIMESTAMPTZ: np.int64,
    FieldType.FLOAT: np.float32,
    FieldType.DOUBLE: np.float64,
    FieldType.BOOLEAN: np.bool_,
}


class Chunk:
    """The columns of some events in the forms that conditions and rules want, each made once."""

    def __init__(self, contract: Contract, columns: Mapping[str, Column], rows: int) -> None:
        self.rows = rows
        self._contract = contract
        self._columns = columns
        self._arrays: dict[str, tuple[NDArray[Any], Mask | None]] = {}
        self._plain: dict[str, list[Any]] = {}

    def all(self) -> Mask:
        """Return a truth value for each event: true."""
        return np.ones(self.rows, dtype=np.bool_)

    def values(self, name: str) -> tuple[NDArray[Any], Mask | None]:
        """Return a number, time or truth value as an array, and which of its entries are there (None: all)."""
        column = self._columns[name]
        if isinstance(column, np.ndarray):
            return column, None
        if name not in self._arrays:
            held = np.empty(self.rows, dtype=object)
            held[:] = column
            there = _not_null(column)
            array = np.zeros(self.rows, dtype=_NUMPY[self._contract.field(name).type])
            array[there] = held[there].astype(array.dtype)
            self._arrays[name] = array, there
        return self._arrays[name]

    def texts(self, name: str) -> list[str | None]:
        """Return a string field."""
        column = self._columns[name]
        return column if isinstance(column, list) else column.tolist()

    def there(self, name: str) -> Mask | None:
        """Return which events have a value (None: all)."""
        column = self._columns[name]
        return None if isinstance(column, np.ndarray) else _not_null(column)

    def plain(self, name: str) -> list[Any]:
        """Return a column as it is remembered: plain values, `float` in 32 bits, long texts as digests."""
        if name not in self._plain:
            self._plain[name] = self._as_plain(name)
        return self._plain[name]

    def _as_plain(self, name: str) -> list[Any]:
        column, kind = self._columns[name], self._contract.field(name).type
        if kind is FieldType.STRING:
            return shortened(self.texts(name))
        if isinstance(column, list) and kind is not FieldType.FLOAT:
            return column
        array, there = self.values(name)
        values: list[Any] = array.tolist()
        if there is None or there.all():
            return values
        return [value if known else None for value, known in zip(values, there.tolist(), strict=True)]


Matcher: TypeAlias = Callable[[Chunk], Mask]


def matcher(condition: Condition | None, contract: Contract) -> Matcher:
    """Return what says for each event of a chunk whether a checked condition holds."""
    match condition:
        case None:
            return Chunk.all
        case AllOf(of=inner):
            return _joined(np.logical_and, [matcher(each, contract) for each in inner])
        case AnyOf(of=inner):
            return _joined(np.logical_or, [matcher(each, contract) for each in inner])
        case Not(of=inner_one):
            holds = matcher(inner_one, contract)
            return lambda chunk: ~holds(chunk)
        case IsNull(field=name):
            return lambda chunk: _negated(chunk, chunk.there(name))
        case ContainsAny(field=name, texts=texts):
            return _containing(name, tuple(map(normalised, texts)))
        case Compare(field=name, op=op, value=value):
            return _comparing(contract.field(name), op, value)
        case OneOf(field=name, values=values):
            return _among(contract.field(name), values)
        case Between(field=name, low=low, high=high):
            field = contract.field(name)
            return _joined(np.logical_and, [_comparing(field, "ge", low), _comparing(field, "le", high)])


def _joined(join: Callable[[Mask, Mask], Mask], parts: list[Matcher]) -> Matcher:
    return lambda chunk: reduce(join, [part(chunk) for part in parts])


def _not_null(column: Sequence[Any]) -> Mask:
    return np.fromiter(map(operator.is_not, column, repeat(None)), np.bool_, len(column))


def _negated(chunk: Chunk, mask: Mask | None) -> Mask:
    return np.zeros(chunk.rows, dtype=np.bool_) if mask is None else ~mask


def _comparing(field: Field, op: str, value: Scalar) -> Matcher:
    if field.type is FieldType.STRING:
        same = _text_among(field.name, frozenset((constant(field, value),)))
        return same if op == "eq" else lambda chunk: _present(~same(chunk), chunk.there(field.name))
    compare = _COMPARISONS[op]
    operand = constant(field, value)

    def holds(chunk: Chunk) -> Mask:
        values, there = chunk.values(field.name)
        return _present(compare(values, operand), there)

    return holds


def _among(field: Field, values: tuple[Scalar, ...]) -> Matcher:
    if field.type is FieldType.STRING:
        return _text_among(field.name, frozenset(constant(field, value) for value in values))
    if len(values) <= EQUALITIES_MAX:
        return _joined(np.logical_or, [_comparing(field, "eq", value) for value in values])
    wanted = np.array([constant(field, value) for value in values], dtype=_NUMPY[field.type])

    def holds(chunk: Chunk) -> Mask:
        found, there = chunk.values(field.name)
        return _present(np.isin(found, wanted), there)

    return holds


def _text_among(name: str, wanted: frozenset[Any]) -> Matcher:
    return lambda chunk: np.fromiter(map(wanted.__contains__, chunk.texts(name)), np.bool_, chunk.rows)


def _containing(name: str, words: tuple[str, ...]) -> Matcher:
    def holds(chunk: Chunk) -> Mask:
        texts = chunk.texts(name)
        found = {text for text in set(texts) if text is not None and contains_any(text, words)}
        return np.fromiter(map(found.__contains__, texts), np.bool_, chunk.rows)

    return holds


def _present(mask: Any, there: Mask | None) -> Mask:
    found: Mask = mask if there is None else mask & there
    return found
