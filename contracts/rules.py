"""Rule documents: which events of a subject lead to which decision.

A rule watches one kind of subject. Its pattern holds when, within `within_s` seconds of event time, events of that
subject satisfied

- `all`: every listed condition at least once, in any order;
- `count`: one condition, `at_least` times; with `among`, in a row: between those events lies none that satisfies
  `among` and not the condition; or
- `sequence`: the conditions of its steps one after another; each step may say how soon after the one before it must
  come, and what must not have happened since then (`without`).

A condition names a contract and comparisons over its fields, all of which must hold. After a decision the rule starts
afresh for that subject, and stays silent for `cooldown_s` seconds of event time. Events before `effective_from`, and
from `effective_until` on, do not concern the rule.

A decision whose completing event is more than `act_within_s` seconds old when it is made is for the record only: a
replay of yesterday, or a device that was away, sets nothing off. `priority` and `audience` travel with the decision.

What a document says about itself (`examples`) is checked whenever it is validated or published: given these events,
expect these decisions.
"""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contracts.errors import RuleError
from contracts.malformed import MALFORMED

WITHIN_S_MAX: Final = 7 * 86_400  # seconds; bounds the state a subject may hold
CONDITIONS_MAX: Final = 16  # conditions per rule; bounds the work per event
COUNT_MAX: Final = 1_000  # events per count; bounds the state a subject may hold
COMPARISONS_MAX: Final = 32  # per condition; bounds the work per event
WORDS_MAX: Final = 4_096  # words of one `contains_any`; all are searched for at once, each is a few hundred bytes then
WORD_CHARS_MAX: Final = 256  # characters of a word
EXAMPLES_MAX: Final = 64  # per rule; they are played whenever the document is read by a person
EXAMPLE_EVENTS_MAX: Final = 256  # per example
ACT_WITHIN_S: Final = 6 * 3_600  # seconds; a rep's morning off the network, and not yesterday
ACT_WITHIN_S_MAX: Final = 30 * 86_400  # seconds
PRIORITY_MAX: Final = 9
TEXT_CHARS_MAX: Final = 256  # characters of a title, an owner, an intent, an action; as the table of decisions has
TENANT_CHARS_MAX: Final = 64  # the same

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=WORD_CHARS_MAX)]
Scalar: TypeAlias = str | int | float | bool
Operator: TypeAlias = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "contains_any", "contains_none"]
WORD_OPERATORS: Final = frozenset({"contains_any", "contains_none"})
Aggregate: TypeAlias = Literal["sum", "mean", "min", "max", "distinct"]
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=WITHIN_S_MAX)]
Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]


class Comparison(Struct, frozen=True, forbid_unknown_fields=True):
    """`field op value`; a null field satisfies no comparison.

    `in` takes a list, `contains` a substring, compared as it is; `contains_any` and `contains_none` take a list of
    words and compare without case and width (`contracts.edge_rules.normalised`), thousands of them at once.
    """

    field: Name
    op: Operator
    value: Scalar | Annotated[tuple[Scalar, ...], Meta(max_length=WORDS_MAX)]


class Condition(Struct, frozen=True, forbid_unknown_fields=True):
    """Events of one contract for which every comparison holds."""

    contract: Name
    where: Annotated[tuple[Comparison, ...], Meta(max_length=COMPARISONS_MAX)] = ()


class AllOf(Struct, frozen=True, tag="all", tag_field="pattern", forbid_unknown_fields=True):
    """Every condition at least once, in any order, within the time."""

    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1, max_length=CONDITIONS_MAX)]
    within_s: Seconds


class CountOf(Struct, frozen=True, tag="count", tag_field="pattern", forbid_unknown_fields=True, omit_defaults=True):
    """One condition at least so many times within the time; with `among`, in a row among the events that satisfy it."""

    condition: Condition
    at_least: Annotated[int, Meta(ge=1, le=COUNT_MAX)]
    within_s: Seconds
    among: Condition | None = None


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step of a sequence: an event that satisfies the condition.

    `after_s_max`: at most so many seconds after the step before; `without`: between the two, no event satisfied any
    of these. The first step has neither.
    """

    condition: Condition
    after_s_max: Seconds | None = None
    without: tuple[Condition, ...] = ()


class SequenceOf(Struct, frozen=True, tag="sequence", tag_field="pattern", forbid_unknown_fields=True):
    """The steps one after another, the whole within the time."""

    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=CONDITIONS_MAX)]
    within_s: Seconds


class ThresholdOf(Struct, frozen=True, tag="threshold", tag_field="pattern", forbid_unknown_fields=True):
    """`aggregate` of `field` over the events of the time that satisfy the condition, `op` `value`.

    An event whose field has no value does not count, nor does one without a finite number, except for `distinct`.
    """

    condition: Condition
    aggregate: Aggregate
    field: Name
    op: Literal["lt", "le", "gt", "ge"]
    value: float
    within_s: Seconds
    at_least: Annotated[int, Meta(ge=1, le=COUNT_MAX)] = 1


Pattern: TypeAlias = AllOf | CountOf | SequenceOf | ThresholdOf


class ExampleEvent(Struct, frozen=True, forbid_unknown_fields=True):
    """An event of an example: `at_s` seconds after its start, about `subject`."""

    contract: Name
    at_s: Annotated[float, Meta(ge=0, le=2 * WITHIN_S_MAX)]
    fields: dict[str, Scalar | None] = {}
    subject: Text = "somebody"


class ExampleDecision(Struct, frozen=True, forbid_unknown_fields=True):
    """A decision that an example expects, made by the event at `at_s` about `subject`."""

    at_s: float
    subject: Text = "somebody"


class Example(Struct, frozen=True, forbid_unknown_fields=True):
    """Given these events, in the order in which they arrive, expect exactly these decisions.

    `start` is the moment that seconds are counted from; without one, when the rule becomes effective.
    """

    title: Text
    given: Annotated[tuple[ExampleEvent, ...], Meta(max_length=EXAMPLE_EVENTS_MAX)]
    expect: Annotated[tuple[ExampleDecision, ...], Meta(max_length=EXAMPLE_EVENTS_MAX)] = ()
    start: Moment | None = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule as published on `fieldlake.rules`, key `id`; an empty value deletes it."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$(?!\n)")]
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    title: Text
    owner: Text
    subject: Name  # subject kind, as in the contracts: `customer`, `asset`
    when: Pattern
    intent: Text
    action: Text
    cooldown_s: Annotated[int, Meta(ge=0, le=366 * 86_400)] = 0
    tenant: Annotated[str, Meta(min_length=1, max_length=TENANT_CHARS_MAX)] = "default"
    effective_from: Moment | None = None
    effective_until: Moment | None = None
    act_within_s: Annotated[int, Meta(ge=1, le=ACT_WITHIN_S_MAX)] = ACT_WITHIN_S
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] = 0  # the higher comes first
    audience: Annotated[str, Meta(max_length=TEXT_CHARS_MAX)] = ""  # who acts: a team, a role, a queue
    examples: Annotated[tuple[Example, ...], Meta(max_length=EXAMPLES_MAX)] = ()


def conditions(rule: Rule) -> tuple[Condition, ...]:
    """Return the rule's conditions as the evaluator counts them: what must happen, then what must not."""
    match rule.when:
        case AllOf(conditions=found):
            return found
        case CountOf(condition=condition, among=among):
            return (condition,) if among is None else (condition, among)
        case SequenceOf(steps=steps):
            return (*(step.condition for step in steps), *absences(steps))
        case ThresholdOf(condition=condition):
            return (condition,)


def fields_read(rule: Rule, contract: str) -> frozenset[str]:
    """Return the fields of a contract's events that decide anything about the rule."""
    own = [condition for condition in conditions(rule) if condition.contract == contract]
    found = {comparison.field for condition in own for comparison in condition.where}
    return frozenset(found | {rule.when.field} if own and isinstance(rule.when, ThresholdOf) else found)


def absences(steps: tuple[Step, ...]) -> tuple[Condition, ...]:
    """Return what must not have happened between steps, each once.

    Told apart by their written form: to Python 1, 1.0 and True are one, and so would be what is compared with them.
    """
    return tuple({msgspec.json.encode(condition): condition for step in steps for condition in step.without}.values())


def encode(rule: Rule) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(rule)


def decode(data: bytes | str) -> Rule:
    """Parse the JSON form and check it. Raises RuleError."""
    try:
        rule = msgspec.json.decode(data, type=Rule)
    except MALFORMED as error:
        raise RuleError(f"{_label_in(data)}: {error}") from error
    check(rule)
    return rule


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a rule document (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | msgspec.json.schema(Rule)


def check(rule: Rule) -> None:
    """Raise RuleError when the rule breaks a limit, also one that was made by hand and not parsed."""
    label = f"rule {rule.id!r} version {rule.version}"
    try:
        msgspec.convert(msgspec.to_builtins(rule), Rule, str_keys=True)
    except MALFORMED as error:
        raise RuleError(f"{label}: {error}") from error
    found = conditions(rule)
    if len(found) > CONDITIONS_MAX:
        raise RuleError(f"{label}: expected at most {CONDITIONS_MAX} conditions in all, found {len(found)}")
    if isinstance(rule.when, SequenceOf) and (rule.when.steps[0].without or rule.when.steps[0].after_s_max):
        raise RuleError(f"{label}: the first step has none before it: give `without` and `after_s_max` to a later one")
    for condition in found:
        for comparison in condition.where:
            _check_comparison(label, comparison)
    if isinstance(rule.when, ThresholdOf) and not isfinite(rule.when.value):
        raise RuleError(f"{label}: threshold {rule.when.value}: expected a finite number")
    if rule.effective_from and rule.effective_until and rule.effective_from >= rule.effective_until:
        raise RuleError(f"{label}: effective_from {rule.effective_from}: expected before effective_until")


class _Head(Struct, frozen=True):
    id: str
    version: int


def _label_in(data: bytes | str) -> str:
    """Name the rule of a document that breaks a limit, as far as it says who it is."""
    try:
        head = msgspec.json.decode(data, type=_Head)
    except MALFORMED:
        return "rule document"
    return f"rule {head.id!r} version {head.version}"


def _check_comparison(label: str, comparison: Comparison) -> None:
    value, where = comparison.value, f"{label}: field {comparison.field!r}"
    if (comparison.op == "in" or comparison.op in WORD_OPERATORS) != isinstance(value, tuple):
        raise RuleError(
            f"{where}: 'in', 'contains_any' and 'contains_none' take a list, every other operator one value"
        )
    if comparison.op in WORD_OPERATORS:
        assert isinstance(value, tuple)
        wrong = next((v for v in value if not isinstance(v, str) or not 0 < len(v) <= WORD_CHARS_MAX), None)
        if not value or wrong is not None:
            raise RuleError(
                f"{where}: {comparison.op!r} expects texts of 1 to {WORD_CHARS_MAX} characters, found {wrong!r}"
            )
