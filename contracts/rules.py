"""Rule documents: which events of a subject lead to which decision.

A rule watches one kind of subject. Its pattern holds when, within `within_s` seconds of event time, events of that
subject satisfied

- `all`: every listed condition at least once, in any order; or
- `count`: one condition, `at_least` times.

A condition names a contract and comparisons over its fields, all of which must hold. After a decision the rule starts
afresh for that subject, and stays silent for `cooldown_s` seconds of event time.
"""

import re
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from contracts.errors import RuleError
from contracts.malformed import MALFORMED

WITHIN_S_MAX: Final = 7 * 86_400  # seconds; bounds the state a subject may hold
CONDITIONS_MAX: Final = 16  # conditions per rule; bounds the work per event
COUNT_MAX: Final = 1_000  # events per count; bounds the state a subject may hold

Scalar: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains"]


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """`field op value`; a null field satisfies no comparison. `in` takes a list, `contains` a substring."""

    field: str
    op: Operator
    value: Scalar | tuple[Scalar, ...]


class Condition(Struct, frozen=True, forbid_unknown_fields=True):
    """Events of one contract for which every comparison holds."""

    contract: str
    where: tuple[Comparison, ...] = ()


class AllOf(Struct, frozen=True, tag="all", tag_field="pattern", forbid_unknown_fields=True):
    """Every condition at least once, in any order, within the time."""

    conditions: tuple[Condition, ...]
    within_s: int


class CountOf(Struct, frozen=True, tag="count", tag_field="pattern", forbid_unknown_fields=True):
    """One condition at least so many times within the time."""

    condition: Condition
    at_least: int
    within_s: int


Pattern: TypeAlias = AllOf | CountOf


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule as published on `fieldlake.rules`, key `id`; an empty value deletes it."""

    id: str
    version: int
    title: str
    owner: str
    subject: str  # subject kind, as in the contracts: `customer`, `asset`
    when: Pattern
    intent: str
    action: str
    cooldown_s: int = 0
    tenant: str = "default"


_RULE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def conditions(rule: Rule) -> tuple[Condition, ...]:
    """Return the rule's conditions in the order that the evaluator counts them."""
    return rule.when.conditions if isinstance(rule.when, AllOf) else (rule.when.condition,)


def encode(rule: Rule) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(rule)


def decode(data: bytes | str) -> Rule:
    """Parse the JSON form and check it. Raises RuleError."""
    try:
        rule = msgspec.json.decode(data, type=Rule)
    except MALFORMED as error:
        raise RuleError(f"rule document: {error}") from error
    check(rule)
    return rule


def check(rule: Rule) -> None:
    """Raise RuleError when the rule breaks a limit."""
    label = f"rule {rule.id!r} version {rule.version}"
    if not _RULE_ID.fullmatch(rule.id) or rule.version < 1:
        raise RuleError(f"{label}: expected an id of lower-case letters, digits and '-', and a version from 1")
    if not 0 < rule.when.within_s <= WITHIN_S_MAX:
        raise RuleError(f"{label}: within_s {rule.when.within_s}: expected 1 to {WITHIN_S_MAX} seconds")
    if not 0 < len(conditions(rule)) <= CONDITIONS_MAX:
        raise RuleError(f"{label}: expected 1 to {CONDITIONS_MAX} conditions, found {len(conditions(rule))}")
    if isinstance(rule.when, CountOf) and not 0 < rule.when.at_least <= COUNT_MAX:
        raise RuleError(f"{label}: at_least {rule.when.at_least}: expected 1 to {COUNT_MAX}")
    for condition in conditions(rule):
        for comparison in condition.where:
            if (comparison.op == "in") != isinstance(comparison.value, tuple):
                raise RuleError(
                    f"{label}: field {comparison.field!r}: 'in' takes a list, every other operator one value"
                )
