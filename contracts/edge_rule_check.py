"""Reading of edge rules: a document's limits, and whether its contract has what it asks for."""

from typing import Final

import msgspec
from msgspec import Struct

from contracts.contract import FLOATS, Contract, Field, FieldType
from contracts.edge_rules import (
    DEPTH_MAX,
    KEYED_RULES_MAX,
    NODES_MAX,
    RULES_MAX,
    AllOf,
    AnyOf,
    Between,
    Compare,
    Condition,
    ContainsAny,
    DeadBand,
    Deduplicate,
    EdgeRule,
    IsNull,
    Not,
    OnChange,
    OneOf,
    Scalar,
    constant,
    leaves,
)
from contracts.errors import ContractError, RuleError
from contracts.malformed import MALFORMED

_EXPECTED: Final = {
    FieldType.STRING: "a text",
    FieldType.BOOLEAN: "true or false",
    FieldType.TIMESTAMPTZ: "an ISO 8601 time with its zone, as text",
    FieldType.INT: "a whole number of 64 bits",
    FieldType.LONG: "a whole number of 64 bits",
    FieldType.FLOAT: "a finite number of 32 bits",
    FieldType.DOUBLE: "a finite number",
}


class _Named(Struct, frozen=True):
    id: str = "?"
    version: int = 0


def decode(data: bytes | str, contract: Contract) -> EdgeRule:
    """Parse the JSON form and check it against the contract of its stream. Raises RuleError."""
    try:
        rule = msgspec.json.decode(data, type=EdgeRule)
    except MALFORMED as error:
        raise RuleError(f"edge rule {_claimed(data)}: {error}") from error
    check((rule,), contract)
    return rule


def check(rules: tuple[EdgeRule, ...], contract: Contract) -> None:
    """Raise RuleError when a stream's rules break a limit, or ask of the contract what it does not have."""
    if len(rules) > RULES_MAX:
        raise RuleError(f"edge rules of {contract.id}: expected at most {RULES_MAX}, found {len(rules)}")
    ids = [rule.id for rule in rules]
    if len(set(ids)) != len(ids):
        raise RuleError(f"edge rules of {contract.id}: expected ids that differ, found {ids}")
    keyed = sum(isinstance(rule.action, Deduplicate | OnChange) for rule in rules)
    if keyed > KEYED_RULES_MAX:
        raise RuleError(
            f"edge rules of {contract.id}: expected at most {KEYED_RULES_MAX} that deduplicate or report on change, "
            f"found {keyed}"
        )
    for rule in rules:
        if rule.when is not None:
            _check_condition(rule, rule.when, contract)
        _check_action(rule, contract)


def _claimed(data: bytes | str) -> str:
    """Return the label that a document claims, as far as it can be read."""
    try:
        named = msgspec.json.decode(data, type=_Named)
    except MALFORMED:
        return "document"
    return f"{named.id[:63]!r} version {named.version}"


def _check_condition(rule: EdgeRule, condition: Condition, contract: Contract) -> None:
    nodes, depth = _size(condition)
    if nodes > NODES_MAX or depth > DEPTH_MAX:
        raise RuleError(
            f"edge rule {rule.label}: expected at most {NODES_MAX} conditions, {DEPTH_MAX} deep, "
            f"found {nodes}, {depth} deep"
        )
    for leaf in leaves(condition):
        field = _field(rule, leaf.field, contract)
        match leaf:
            case Compare(op=op, value=value):
                if op not in ("eq", "ne"):
                    _require_order(rule, field, op)
                _require(rule, field, (value,))
            case OneOf(values=values):
                _require(rule, field, values)
            case Between(low=low, high=high):
                _require_order(rule, field, "between")
                _require(rule, field, (low, high))
            case ContainsAny():
                if field.type is not FieldType.STRING:
                    raise _unfit(rule, field, "'contains_any' takes a string field")
            case IsNull():
                pass


def _size(condition: Condition) -> tuple[int, int]:
    """Return how many conditions there are, and how many deep; a document may be deeper than calls can nest."""
    nodes, depth, level = 0, 0, [condition]
    while level:
        nodes, depth, below = nodes + len(level), depth + 1, list[Condition]()
        for each in level:
            match each:
                case AllOf(of=inner) | AnyOf(of=inner):
                    below.extend(inner)
                case Not(of=inner_one):
                    below.append(inner_one)
                case _:
                    continue
        level = below
    return nodes, depth


def _check_action(rule: EdgeRule, contract: Contract) -> None:
    match rule.action:
        case Deduplicate(fields=fields):
            for name in fields:
                _field(rule, name, contract)
        case OnChange(fields=bands, by=by):
            for name in by:
                _field(rule, name, contract)
            for band in bands:
                _check_band(rule, band, _field(rule, band.field, contract))
        case _:
            return
    time = contract.event_time_field
    if time is None or not contract.field(time).required:
        raise RuleError(
            f"edge rule {rule.label}: it goes by event time: contract {contract.id} {contract.version}: expected a "
            f"required event time field, found {'none' if time is None else f'{time!r}, which may be null'}"
        )


def _check_band(rule: EdgeRule, band: DeadBand, field: Field) -> None:
    if band.absolute is None and band.relative is None:
        return
    if band.absolute is not None and band.relative is not None:
        raise _unfit(rule, field, "expected 'absolute' or 'relative', found both")
    if field.type not in FLOATS | {FieldType.INT, FieldType.LONG}:
        raise _unfit(rule, field, "a dead-band takes a number field")


def _field(rule: EdgeRule, name: str, contract: Contract) -> Field:
    try:
        return contract.field(name)
    except ContractError as error:
        raise RuleError(f"edge rule {rule.label}: field {name!r}: {error}") from error


def _require(rule: EdgeRule, field: Field, values: tuple[Scalar, ...]) -> None:
    for value in values:
        if constant(field, value) is None:
            raise _unfit(rule, field, f"expected {_EXPECTED[field.type]}, found {value!r}")


def _require_order(rule: EdgeRule, field: Field, op: str) -> None:
    if field.type in (FieldType.STRING, FieldType.BOOLEAN):
        raise _unfit(rule, field, f"{op!r} takes a number or a time")


def _unfit(rule: EdgeRule, field: Field, what: str) -> RuleError:
    return RuleError(f"edge rule {rule.label}: field {field.name!r} ({field.type.value}): {what}")
