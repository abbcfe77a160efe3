"""What a document says of itself is played; a sentence names each example that comes out otherwise."""

from datetime import UTC, datetime

from msgspec.structs import replace

from contracts.rules import Comparison, Condition, CountOf, Example, ExampleDecision, ExampleEvent, Rule
from flink_jobs.triggers.core.examples import failures, play

RULE = Rule(
    "price", 2, "t", "o", "contact",
    CountOf(Condition("visits", (Comparison("note", "contains_any", ("比价",)),)), 2, 60), "i", "a",
    effective_from=datetime(2026, 9, 1, tzinfo=UTC),
)  # fmt: skip
TWICE = (
    ExampleEvent("visits", 0, {"note": "需要比价"}),
    ExampleEvent("visits", 0.25, {"note": "比价？", "origin": "x"}),
)


def with_examples(*examples: Example) -> Rule:
    return replace(RULE, examples=examples)


def test_an_example_that_comes_out_says_nothing() -> None:
    assert failures(with_examples(Example("twice", TWICE, (ExampleDecision(0.25),)))) == ()


def test_an_example_that_comes_out_otherwise_is_named_with_both() -> None:
    silent = Example("nobody", TWICE)
    loud = Example("somebody else", TWICE, (ExampleDecision(0.25, "王芳"),))
    expected_none, expected_another = failures(with_examples(silent, loud))
    assert expected_none == (
        "rule 'price' version 2, example 'nobody': expected no decision, found one about somebody at 0.25 s: "
        "change the rule or what the example expects of it"
    )
    assert "'somebody else': expected one about 王芳 at 0.25 s, found one about somebody at 0.25 s" in expected_another


def test_an_example_begins_when_its_rule_does_or_when_it_says() -> None:
    (decision,) = play(RULE, Example("twice", TWICE))
    assert decision.event_time_us == round(datetime(2026, 9, 1, tzinfo=UTC).timestamp() * 1e6) + 250_000
    assert play(RULE, Example("too early", TWICE, start=datetime(2026, 8, 31, tzinfo=UTC))) == ()


def test_events_of_another_subject_or_contract_are_told_apart() -> None:
    apart = (TWICE[0], ExampleEvent("visits", 1, {"note": "比价"}, "李伟"), ExampleEvent("clicks", 1, {"note": "比价"}))
    assert failures(with_examples(Example("apart", apart))) == ()
