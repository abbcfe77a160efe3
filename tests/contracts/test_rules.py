"""Rule documents: what is refused, and why."""

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from contracts import rules
from contracts.errors import RuleError
from contracts.rules import (
    CONDITIONS_MAX,
    COUNT_MAX,
    WITHIN_S_MAX,
    WORDS_MAX,
    AllOf,
    Comparison,
    Condition,
    CountOf,
    Example,
    ExampleDecision,
    ExampleEvent,
    Rule,
    SequenceOf,
    Step,
    ThresholdOf,
)

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
CLICK, VISIT, NOTE = Condition("clicks"), Condition("visits"), Condition("notes")
RUN = msgspec.structs.replace(ALL, when=CountOf(CLICK, 3, 60, among=VISIT))
SEQUENCE = msgspec.structs.replace(
    ALL,
    when=SequenceOf((Step(CLICK), Step(VISIT, 30, (NOTE, CLICK)), Step(CLICK, None, (NOTE,))), 60),
    effective_from=datetime(2026, 9, 1, tzinfo=timezone(timedelta(hours=8))),
    examples=(Example("预算", (ExampleEvent("clicks", 0.5, {"f": None}, "王芳"),), (ExampleDecision(0.5, "王芳"),)),),
)


def changed(**changes: Any) -> Rule:
    return msgspec.structs.replace(ALL, **changes)


LEVEL = msgspec.structs.replace(ALL, when=ThresholdOf(CLICK, "sum", "dwell_s", "ge", 600, 3_600, 2))


@pytest.mark.parametrize(
    "rule", [ALL, COUNT, RUN, SEQUENCE, LEVEL], ids=["all", "count", "run", "sequence", "threshold"]
)
def test_a_rule_survives_its_json_form(rule: Rule) -> None:
    assert rules.decode(rules.encode(rule)) == rule


def test_conditions_are_those_of_either_pattern() -> None:
    assert rules.conditions(ALL) == (Condition("clicks", rules.conditions(ALL)[0].where),)
    assert rules.conditions(COUNT) == (Condition("telemetry"),)
    assert rules.conditions(RUN) == (CLICK, VISIT)
    assert rules.conditions(LEVEL) == (CLICK,)
    assert rules.conditions(SEQUENCE) == (CLICK, VISIT, CLICK, NOTE, CLICK)


def test_what_must_not_come_between_is_told_apart_as_it_is_written() -> None:
    one, other = (Condition("clicks", (Comparison("f", "eq", value),)) for value in (1, True))
    steps = (Step(CLICK), Step(VISIT, None, (one, other, one)))
    assert list(map(str, rules.absences(steps))) == list(map(str, (one, other)))


def test_the_field_of_a_threshold_is_read_as_well() -> None:
    assert rules.fields_read(LEVEL, "clicks") == {"dwell_s"}
    assert rules.fields_read(ALL, "clicks") == {"event", "document"}
    assert rules.fields_read(LEVEL, "visits") == rules.fields_read(ALL, "visits") == frozenset()


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(RuleError, match="expected a finite number"):
        rules.check(changed(when=ThresholdOf(CLICK, "sum", "f", "ge", float("inf"), 60)))


def test_a_count_without_a_run_has_the_form_it_always_had() -> None:
    """State is kept under a digest of this form: another one would forget what has begun to match."""
    found = msgspec.json.decode(rules.encode(COUNT))["when"]
    assert found == {
        "pattern": "count",
        "condition": {"contract": "telemetry", "where": []},
        "at_least": 3,
        "within_s": 60,
    }


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
        changed(when=AllOf((Condition("clicks", (Comparison("f", "contains_any", "text"),)),), 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "contains_any", ()),)),), 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "contains_none", ("a", "")),)),), 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "contains_any", ("a", 5)),)),), 60)),
        changed(when=AllOf((Condition("clicks", (Comparison("f", "in", ("a",) * (WORDS_MAX + 1)),)),), 60)),
        changed(when=SequenceOf((), 60)),
        changed(when=SequenceOf((Step(CLICK, 5), Step(VISIT)), 60)),
        changed(when=SequenceOf((Step(CLICK, None, (NOTE,)), Step(VISIT)), 60)),
        changed(when=SequenceOf((Step(CLICK), Step(VISIT, 0)), 60)),
        changed(when=SequenceOf((Step(CLICK),) * CONDITIONS_MAX + (Step(VISIT, None, (NOTE,)),), 60)),
        changed(when=ThresholdOf(CLICK, "sum", "", "ge", 1, 60)),
        changed(when=ThresholdOf(CLICK, "sum", "f", "ge", 1, 60, COUNT_MAX + 1)),
        changed(title=""),
        changed(cooldown_s=-1),
        changed(effective_from=datetime(2026, 9, 1)),
        changed(effective_from=SEQUENCE.effective_from, effective_until=SEQUENCE.effective_from),
        changed(examples=(Example("an example", (ExampleEvent("clicks", -1),)),)),
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
        SequenceOf((Step(CLICK),) * CONDITIONS_MAX, WITHIN_S_MAX),
        AllOf((Condition("clicks", (Comparison("f", "contains_any", tuple(map(str, range(WORDS_MAX)))),)),), 60),
    ):
        rules.check(changed(when=pattern, id="x" * 63))


def test_documents_of_the_schema_are_rules() -> None:
    schema = rules.schema()
    assert schema["$schema"].endswith("2020-12/schema")
    assert {"Rule", "SequenceOf", "ExampleEvent"} <= schema["$defs"].keys()


def test_a_key_that_no_rule_has_is_refused() -> None:
    document = msgspec.json.decode(rules.encode(ALL)) | {"cooldown": 5}
    with pytest.raises(RuleError, match="cooldown"):
        rules.decode(msgspec.json.encode(document))
