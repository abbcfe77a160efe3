"""Rule documents: what is refused, and why."""

from typing import Any

import msgspec
import pytest

from contracts import rules
from contracts.errors import RuleError
from contracts.rules import CONDITIONS_MAX, COUNT_MAX, WITHIN_S_MAX, AllOf, Comparison, Condition, CountOf, Rule

ALL = Rule(
    id="sample-application",
    version=1,
    title="Interest in a sample",
    owner="sales",
    subject="customer",
    when=AllOf(
        (Condition("clicks", (Comparison("event", "eq", "print"), Comparison("document", "in", ("a", "b")))),), 600
    ),
    intent="sample application",
    action="call",
)
COUNT = msgspec.structs.replace(ALL, id="anomalies", when=CountOf(Condition("telemetry"), 3, 60))


def changed(**changes: Any) -> Rule:
    return msgspec.structs.replace(ALL, **changes)


@pytest.mark.parametrize("rule", [ALL, COUNT], ids=["all", "count"])
def test_a_rule_survives_its_json_form(rule: Rule) -> None:
    assert rules.decode(rules.encode(rule)) == rule


def test_conditions_are_those_of_either_pattern() -> None:
    assert rules.conditions(ALL) == (Condition("clicks", rules.conditions(ALL)[0].where),)
    assert rules.conditions(COUNT) == (Condition("telemetry"),)


@pytest.mark.parametrize(
    "rule",
    [
        changed(id="Upper"),
        changed(id=""),
        changed(id="x" * 64),
        changed(version=0),
        changed(when=AllOf((Condition("clicks"),), 0)),
        changed(when=AllOf((Condition("clicks"),), WITHIN_S_MAX + 1)),
        changed(when=AllOf((), 60)),
        changed(when=AllOf((Condition("clicks"),) * (CONDITIONS_MAX + 1), 60)),
        changed(when=CountOf(Condition("clicks"), 0, 60)),
        changed(when=CountOf(Condition("clicks"), COUNT_MAX + 1, 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "in", "text"),)),), 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "eq", ("a",)),)),), 60)),
    ],
    ids=str,
)
def test_a_rule_beyond_a_limit_is_refused_by_name(rule: Rule) -> None:
    with pytest.raises(RuleError, match=f"rule {rule.id!r} version {rule.version}"):
        rules.decode(rules.encode(rule))


def test_a_rule_at_every_limit_is_taken() -> None:
    for pattern in (
        AllOf((Condition("clicks"),) * CONDITIONS_MAX, WITHIN_S_MAX),
        CountOf(Condition("clicks"), COUNT_MAX, WITHIN_S_MAX),
        CountOf(Condition("clicks"), 1, 1),
    ):
        rules.check(changed(when=pattern, id="x" * 63))


def test_a_key_that_no_rule_has_is_refused() -> None:
    document = msgspec.json.decode(rules.encode(ALL)) | {"cooldown": 5}
    with pytest.raises(RuleError, match="cooldown"):
        rules.decode(msgspec.json.encode(document))
