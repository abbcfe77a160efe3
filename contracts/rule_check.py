"""Whether contracts have what a rule asks of them."""

from collections.abc import Iterator, Mapping
from typing import Final

from contracts.contract import FLOATS, INTEGERS, Contract, Field, FieldType
from contracts.errors import RuleError
from contracts.rules import WORD_OPERATORS, Comparison, Condition, Rule, ThresholdOf, conditions

_TEXT_OPERATORS: Final = WORD_OPERATORS | {"contains"}


def check_against(rule: Rule, contracts: Mapping[str, Contract]) -> None:
    """Raise RuleError when a rule asks for a contract, subject or field that is not there, or compares unlike kinds.

    `contracts`: the newest version of each, by id. A rule in force goes on when a contract changes; this is for whoever
    is about to publish one, for whom a condition that can never hold is a mistake.
    """
    problems = [problem for condition in conditions(rule) for problem in _problems(rule, condition, contracts)]
    if problems:
        label = f"rule {rule.id!r} version {rule.version}"
        raise RuleError(f"{label}: {'; '.join(dict.fromkeys(problems))}")


def _problems(rule: Rule, condition: Condition, contracts: Mapping[str, Contract]) -> Iterator[str]:
    contract = contracts.get(condition.contract)
    if contract is None:
        yield f"contract {condition.contract!r}: expected one of {', '.join(sorted(contracts))}"
        return
    if contract.subject_kind != rule.subject:
        yield (
            f"contract {contract.id}: expected events about a {rule.subject}, found events about "
            f"{contract.subject_kind or 'nobody'}: take a contract with the rule's subject"
        )
    fields = {field.name: field for field in contract.fields}
    if isinstance(rule.when, ThresholdOf):
        yield from _unfit_threshold(rule.when, contract, fields)
    for comparison in condition.where:
        field = fields.get(comparison.field)
        if field is None:
            yield f"contract {contract.id}, field {comparison.field!r}: expected one of {', '.join(sorted(fields))}"
        else:
            yield from _mismatches(contract, field, comparison)


def _unfit_threshold(threshold: ThresholdOf, contract: Contract, fields: Mapping[str, Field]) -> Iterator[str]:
    field = fields.get(threshold.field)
    if field is None:
        yield f"contract {contract.id}, field {threshold.field!r}: expected one of {', '.join(sorted(fields))}"
    elif threshold.aggregate != "distinct" and not _comparable(field.type, 0):
        label = f"contract {contract.id}, field {field.name!r}"
        yield f"{label}: expected a number for {threshold.aggregate!r}, found {field.type.value}"


def _mismatches(contract: Contract, field: Field, comparison: Comparison) -> Iterator[str]:
    label = f"contract {contract.id}, field {field.name!r}"
    values = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    if comparison.op in _TEXT_OPERATORS and field.type is not FieldType.STRING:
        yield f"{label}: {comparison.op!r} looks into text, found {field.type.value}"
        return
    for value in values:
        if not _comparable(field.type, value):
            yield f"{label}: expected a value that compares with {field.type.value}, found {value!r}"


def _comparable(kind: FieldType, value: object) -> bool:
    """Say whether a value is of the kind that events carry: times are whole microseconds since 1970."""
    if isinstance(value, bool):
        return kind is FieldType.BOOLEAN
    if isinstance(value, str):
        return kind is FieldType.STRING
    return kind in INTEGERS or kind in FLOATS or kind is FieldType.TIMESTAMPTZ
