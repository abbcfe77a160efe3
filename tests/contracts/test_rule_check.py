"""Whether contracts have what a rule asks of them: each mistake is named, with what would be right."""

import pytest

from contracts.contract import Contract, Field, FieldType
from contracts.errors import RuleError
from contracts.rule_check import check_against
from contracts.rules import Aggregate, AllOf, Comparison, Condition, CountOf, Operator, Rule, Scalar, ThresholdOf

CONTRACT = Contract(
    id="visits",
    version="1.0.0",
    title="Visits",
    purpose="tests",
    owner="us",
    catalog="lake_a",
    namespace="field",
    fields=tuple(Field(n, kind.value, kind) for n, kind in enumerate(FieldType, start=1)),
    retention_days=1,
    subject_kind="contact",
    subject_field="string",
)
CONTRACTS = {"visits": CONTRACT}


def rule(*where: Comparison, contract: str = "visits", subject: str = "contact") -> Rule:
    return Rule("r", 3, "t", "o", subject, AllOf((Condition(contract, where),), 60), "i", "a")


@pytest.mark.parametrize(
    ("field", "op", "value"),
    [
        ("string", "contains_any", ("预算", "budget")),
        ("string", "in", ("a", "b")),
        ("string", "contains", "a"),
        ("int", "ge", 2.5),
        ("long", "eq", 2**80),
        ("float", "in", (1, 2.5)),
        ("double", "ne", 0),
        ("boolean", "eq", True),
        ("timestamptz", "gt", 1_800_000_000_000_000),
    ],
)
def test_what_may_hold_is_good(field: str, op: Operator, value: Scalar | tuple[Scalar, ...]) -> None:
    check_against(rule(Comparison(field, op, value)), CONTRACTS)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (rule(contract="visit"), "contract 'visit': expected one of visits"),
        (rule(subject="asset"), "contract visits: expected events about a asset, found events about contact"),
        (rule(Comparison("note", "eq", "a")), "contract visits, field 'note': expected one of boolean, double"),
        (rule(Comparison("long", "eq", "a")), "field 'long': expected a value that compares with long, found 'a'"),
        (rule(Comparison("long", "in", (1, True))), "expected a value that compares with long, found True"),
        (rule(Comparison("string", "ge", 1)), "expected a value that compares with string, found 1"),
        (rule(Comparison("double", "contains_none", ("a",))), "'contains_none' looks into text, found double"),
        (rule(Comparison("boolean", "contains", "a")), "'contains' looks into text, found boolean"),
    ],
    ids=str,
)
def test_what_never_holds_is_named(one: Rule, says: str) -> None:
    with pytest.raises(RuleError, match=f"rule 'r' version 3: .*{says}"):
        check_against(one, CONTRACTS)


@pytest.mark.parametrize(
    ("field", "aggregate", "says"),
    [
        ("worth", "sum", "field 'worth': expected one of"),
        ("string", "mean", "field 'string': expected a number for 'mean', found string"),
        ("boolean", "max", "field 'boolean': expected a number for 'max', found boolean"),
    ],
)
def test_a_threshold_over_what_is_no_number_is_named(field: str, aggregate: Aggregate, says: str) -> None:
    threshold = ThresholdOf(Condition("visits"), aggregate, field, "ge", 3, 60)
    with pytest.raises(RuleError, match=says):
        check_against(Rule("r", 3, "t", "o", "contact", threshold, "i", "a"), CONTRACTS)
    for good in ("sum", "distinct"):
        fitting = ThresholdOf(Condition("visits"), good, "double", "ge", 3, 60)
        check_against(Rule("r", 3, "t", "o", "contact", fitting, "i", "a"), CONTRACTS)


def test_every_mistake_is_named_once() -> None:
    wrong = Condition("visits", (Comparison("note", "eq", "a"), Comparison("long", "eq", "a")))
    with pytest.raises(RuleError) as caught:
        check_against(Rule("r", 3, "t", "o", "contact", CountOf(wrong, 2, 60, among=wrong), "i", "a"), CONTRACTS)
    assert str(caught.value).count("'note'") == str(caught.value).count("'long'") == 1
