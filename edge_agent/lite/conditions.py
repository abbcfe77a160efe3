"""Conditions of edge rules over a chunk of events, without numpy: one truth value per event.

The twin of `edge_agent.core.filter.conditions`; what a condition means is said in `contracts.edge_rules`.
"""

import operator
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

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
    as_float32,
    constant,
    contains_any,
    normalised,
)
from edge_agent.core.filter.repeats import shortened

Mask: TypeAlias = list[bool]
LiteColumn: TypeAlias = Any  # a list, in which None is null, or an `array.array`

_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


class Chunk:
    """The columns of some events in the forms that conditions and rules want, each made once."""

    def __init__(self, contract: Contract, columns: Mapping[str, LiteColumn], rows: int) -> None:
        self.rows = rows
        self._contract = contract
        self._columns = columns
        self._values: dict[str, list[Any]] = {}
        self._plain: dict[str, list[Any]] = {}

    def all(self) -> Mask:
        """Return a truth value for each event: true."""
        return [True] * self.rows

    def values(self, name: str) -> list[Any]:
        """Return a column as plain values, `float` in 32 bits."""
        if name not in self._values:
            column, kind = self._columns[name], self._contract.field(name).type
            if kind is FieldType.FLOAT and not (isinstance(column, array) and column.typecode == "f"):
                self._values[name] = [None if value is None else as_float32(value) for value in column]
            else:
                self._values[name] = column if isinstance(column, list) else list(column)
        return self._values[name]

    def plain(self, name: str) -> list[Any]:
        """Return a column as it is remembered: as `values`, long texts as digests."""
        if name not in self._plain:
            values = self.values(name)
            is_text = self._contract.field(name).type is FieldType.STRING
            self._plain[name] = shortened(values) if is_text else values
        return self._plain[name]


Matcher: TypeAlias = Callable[[Chunk], Mask]


def matcher(condition: Condition | None, contract: Contract) -> Matcher:
    """Return what says for each event of a chunk whether a checked condition holds."""
    match condition:
        case None:
            return Chunk.all
        case AllOf(of=inner):
            return _joined(all, [matcher(each, contract) for each in inner])
        case AnyOf(of=inner):
            return _joined(any, [matcher(each, contract) for each in inner])
        case Not(of=inner_one):
            holds = matcher(inner_one, contract)
            return lambda chunk: list(map(operator.not_, holds(chunk)))
        case IsNull(field=name):
            return lambda chunk: [value is None for value in chunk.values(name)]
        case ContainsAny(field=name, texts=texts):
            return _containing(name, tuple(map(normalised, texts)))
        case Compare(field=name, op=op, value=value):
            return _comparing(contract.field(name), op, value)
        case OneOf(field=name, values=values):
            return _among(contract.field(name), values)
        case Between(field=name, low=low, high=high):
            return _between(contract.field(name), low, high)


def _joined(join: Callable[[Any], bool], parts: list[Matcher]) -> Matcher:
    return lambda chunk: list(map(join, zip(*(part(chunk) for part in parts), strict=True)))


def _comparing(field: Field, op: str, value: Scalar) -> Matcher:
    if op == "eq":
        return _among(field, (value,))
    compare, operand = _COMPARISONS[op], constant(field, value)
    return lambda chunk: [found is not None and compare(found, operand) for found in chunk.values(field.name)]


def _among(field: Field, values: tuple[Scalar, ...]) -> Matcher:
    wanted = frozenset(constant(field, value) for value in values)
    return lambda chunk: list(map(wanted.__contains__, chunk.values(field.name)))


def _between(field: Field, low: Scalar, high: Scalar) -> Matcher:
    least: Any = constant(field, low)
    most: Any = constant(field, high)
    return lambda chunk: [found is not None and least <= found <= most for found in chunk.values(field.name)]


def _containing(name: str, words: tuple[str, ...]) -> Matcher:
    def holds(chunk: Chunk) -> Mask:
        texts = chunk.values(name)
        found = {text for text in set(texts) if text is not None and contains_any(text, words)}
        return list(map(found.__contains__, texts))

    return holds
