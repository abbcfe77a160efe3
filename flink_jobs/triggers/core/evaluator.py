"""Rules over one candidate message: `evaluate(rules, state, candidates) -> (state, decisions)`.

State is kept per rule id, version, pattern and subject, so a new version starts afresh, and so does the same version
published with another pattern. Rows of a message are taken in order of event time.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Final

from contracts.candidates import Candidates
from contracts.decisions import BECAUSE_CHARS_MAX, Decision, EventId, decision_id
from contracts.rules import AllOf, CountOf, Pattern, Rule, Scalar, SequenceOf, Step, ThresholdOf
from flink_jobs.triggers.core.conditions import SIGNS, describe, kind_of
from flink_jobs.triggers.core.forgetting import swept
from flink_jobs.triggers.core.forms import US_PER_S
from flink_jobs.triggers.core.matching import step
from flink_jobs.triggers.core.partials import Mark, Matches, Partial, ShardState
from flink_jobs.triggers.core.rule_set import MS_PER_S, Columns, Measure, RuleSet, Watch, satisfied

US_PER_MS: Final = 1_000


def evaluate(
    rules: RuleSet, state: ShardState, candidates: Candidates, now_ms: int
) -> tuple[ShardState, tuple[Decision, ...]]:
    """Return the shard's state after a candidate message, and the decisions that it completed.

    `now_ms` is the wall clock: it dates the decisions, says which come too late to act upon, and bounds the shard's own
    clock. Whether there is a decision, and its id, do not depend on it.
    """
    clock_ms = max(state.clock_ms, min(candidates.sealed_at_ms, now_ms))
    changed: dict[str, dict[str, Partial]] = {}
    decisions: list[Decision] = []
    for watch, marks in _marked(rules, candidates):
        for subject, mark in marks:
            known: Matches = changed.get(subject) or state.subjects.get(subject, {})
            before = known.get(watch.key, Partial())
            after, matched = step(watch.form, watch.timing, before, mark, clock_ms)
            if after is not before:
                changed.setdefault(subject, dict(known))[watch.key] = after
            if matched:
                decisions.append(_decision(watch.rule, subject, matched, candidates.sealed_at_ms, now_ms))
    subjects = {**state.subjects, **changed} if changed else state.subjects
    return swept(rules, ShardState(clock_ms, state.swept_ms, subjects)), tuple(decisions)


def _marked(rules: RuleSet, candidates: Candidates) -> list[tuple[Watch, list[tuple[str, Mark]]]]:
    """Return every rule that some row satisfies a condition of, with (subject, mark) in order of event time."""
    listening = rules.listening.get((candidates.subject_kind, candidates.contract))
    if listening is None:
        return []
    columns = dict(zip(candidates.names, candidates.columns, strict=True))
    found = satisfied(listening, columns, len(candidates.columns[0]))
    ordered = sorted(found.items(), key=lambda item: item[0])
    return [(watch, _marks(watch, candidates, columns, bits)) for _, (watch, bits) in ordered]


def _marks(
    watch: Watch, candidates: Candidates, columns: Columns, bits_by_row: Mapping[int, int]
) -> list[tuple[str, Mark]]:
    seqs, times_us, subjects = candidates.columns[:3]
    contract, origin, epoch = candidates.contract, candidates.origin, candidates.epoch
    made: list[tuple[str, Mark]] = []
    for row, bits in bits_by_row.items():
        value = 0 if watch.measure is None else _measured(watch.measure, columns, row)
        if watch.from_us <= times_us[row] < watch.until_us and value is not None:
            event = EventId(contract, origin, epoch, seqs[row])
            made.append((subjects[row], Mark(times_us[row], event, bits, value)))
    return sorted(made, key=lambda pair: pair[1])


def _measured(measure: Measure, columns: Columns, row: int) -> Scalar | None:
    """Return a row's value as far as it counts."""
    value = columns[measure.field][row] if measure.field in columns else None
    if not isinstance(value, str | int | float) or (measure.numbers and kind_of(value) != "number"):
        return None
    return None if isinstance(value, float) and not isfinite(value) else value


def _decision(rule: Rule, subject: str, matched: tuple[Mark, ...], sealed_at_ms: int, now_ms: int) -> Decision:
    events = tuple(sorted(mark.event for mark in matched))
    return Decision(
        id=decision_id(rule.tenant, rule.id, rule.version, subject, events),
        tenant=rule.tenant,
        rule_id=rule.id,
        rule_version=rule.version,
        subject_kind=rule.subject,
        subject=subject,
        intent=rule.intent,
        action=rule.action,
        event_time_us=matched[-1].time_us,
        sealed_at_ms=sealed_at_ms,
        decided_at_ms=now_ms,
        events=events,
        because=_because(rule, subject, matched),
        standing="late" if now_ms - matched[-1].time_us // US_PER_MS > rule.act_within_s * MS_PER_S else "act",
        priority=rule.priority,
        audience=rule.audience,
    )


def _because(rule: Rule, subject: str, matched: tuple[Mark, ...]) -> str:
    took_s = (matched[-1].time_us - matched[0].time_us) / US_PER_S
    what = f"{rule.title}: {rule.subject} {subject} had {_what(rule.when, len(matched))}"
    when = (
        f"; in {took_s:g} s, {rule.when.within_s} s allowed, from {_utc(matched[0].time_us)} to "
        f"{_utc(matched[-1].time_us)}."
    )
    room = BECAUSE_CHARS_MAX - len(when)
    return (what if len(what) <= room else what[: room - 1] + "…") + when


def _what(pattern: Pattern, times: int) -> str:
    match pattern:
        case AllOf(conditions=found):
            return "all of: " + "; ".join(map(describe, found))
        case CountOf(condition=condition, among=among):
            in_a_row = "" if among is None else f"in a row among {describe(among)}: "
            return f"{times} times {in_a_row}{describe(condition)}"
        case ThresholdOf(condition=condition, aggregate=aggregate, field=field, op=op, value=value):
            return f"{aggregate} of {field} {SIGNS[op]} {value:g} over {times} times {describe(condition)}"
        case SequenceOf(steps=steps):
            return "one after another: " + "; ".join(map(_step, steps))


def _step(step: Step) -> str:
    said = describe(step.condition)
    if step.without:
        said += " without " + " or ".join(map(describe, step.without)) + " since"
    return said if step.after_s_max is None else f"{said}, at most {step.after_s_max} s later"


def _utc(time_us: int) -> str:
    """Return an event time as text; one that no calendar holds stays a number."""
    try:
        return datetime.fromtimestamp(time_us / US_PER_S, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} us"
