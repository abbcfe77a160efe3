"""What a rule's document says of itself, played through the evaluator: given these events, these decisions."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from contracts.candidates import Candidates, shard_of
from contracts.contract import SEQ_COLUMN
from contracts.decisions import Decision
from contracts.rules import Example, ExampleEvent, Rule
from flink_jobs.triggers.core import partials
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.forms import US_PER_S
from flink_jobs.triggers.core.partials import ShardState
from flink_jobs.triggers.core.rule_set import prepare

ORIGIN: Final = "example"
EPOCH: Final = 1
START: Final = datetime(2026, 1, 1, tzinfo=UTC)  # of an example that says none, for a rule that is always effective
TIME_COLUMN: Final = "occurred_at"
SUBJECT_COLUMN: Final = "subject"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Outcome = tuple[str, float]  # subject, seconds after the start


def failures(rule: Rule) -> tuple[str, ...]:
    """Return a sentence for each example that does not come out as the document says; none when all do."""
    return tuple(sentence for example in rule.examples if (sentence := _failure(rule, example)))


def play(rule: Rule, example: Example) -> tuple[Decision, ...]:
    """Return the decisions that the rule makes of an example's events, one after another as they arrive."""
    start_us = (_start(rule, example) - _EPOCH) // timedelta(microseconds=1)
    rules, state, made = prepare([rule]), partials.EMPTY, list[Decision]()
    for seq, event in enumerate(example.given):
        message = _message(rule, event, seq, start_us)
        after: tuple[ShardState, Sequence[Decision]] = evaluate(rules, state, message, message.sealed_at_ms)
        state = after[0]
        made += after[1]
    return tuple(made)


def _failure(rule: Rule, example: Example) -> str:
    start_us = (_start(rule, example) - _EPOCH) // timedelta(microseconds=1)
    found = sorted((d.subject, (d.event_time_us - start_us) / US_PER_S) for d in play(rule, example))
    expected = sorted((decision.subject, decision.at_s) for decision in example.expect)
    if found == expected:
        return ""
    return (
        f"rule {rule.id!r} version {rule.version}, example {example.title!r}: expected {_told(expected)}, "
        f"found {_told(found)}: change the rule or what the example expects of it"
    )


def _start(rule: Rule, example: Example) -> datetime:
    return example.start or rule.effective_from or START


def _message(rule: Rule, event: ExampleEvent, seq: int, start_us: int) -> Candidates:
    time_us = start_us + round(event.at_s * US_PER_S)
    own: dict[str, Any] = {name: value for name, value in event.fields.items() if name not in _SYSTEM}
    return Candidates(
        shard=shard_of(event.subject),
        ruleset=0,
        contract=event.contract,
        contract_version="example",
        subject_kind=rule.subject,
        origin=ORIGIN,
        epoch=EPOCH,
        sealed_at_ms=time_us // 1_000,
        names=(*_SYSTEM, *own),
        columns=([seq], [time_us], [event.subject], *([value] for value in own.values())),
    )


_SYSTEM: Final = (SEQ_COLUMN, TIME_COLUMN, SUBJECT_COLUMN)


def _told(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "no decision"
    return ", ".join(f"one about {subject} at {at_s:g} s" for subject, at_s in outcomes)
