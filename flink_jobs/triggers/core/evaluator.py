"""Rules over one candidate message: `evaluate(rules, state, candidates) -> (state, decisions)`.

State is kept per rule id, version, pattern and subject, so a new version starts afresh, and so does the same version
published with another pattern. Rows of a message are taken in order of event time.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from contracts.candidates import Candidates
from contracts.decisions import Decision, EventId, decision_id
from contracts.rules import AllOf, Rule, conditions
from flink_jobs.triggers.core.conditions import describe
from flink_jobs.triggers.core.forgetting import swept
from flink_jobs.triggers.core.matching import step
from flink_jobs.triggers.core.partials import Mark, Matches, Partial, ShardState
from flink_jobs.triggers.core.rule_set import RuleSet, Watch, satisfied

US_PER_S: Final = 1_000_000


def evaluate(
    rules: RuleSet, state: ShardState, candidates: Candidates, now_ms: int
) -> tuple[ShardState, tuple[Decision, ...]]:
    """Return the shard's state after a candidate message, and the decisions that it completed.

    `now_ms` is the wall clock: it dates the decisions and bounds the shard's own clock, it decides nothing.
    """
    clock_ms = max(state.clock_ms, min(candidates.sealed_at_ms, now_ms))
    changed: dict[str, dict[str, Partial]] = {}
    decisions: list[Decision] = []
    for watch, marks in _marked(rules, candidates):
        for subject, mark in marks:
            known: Matches = changed.get(subject) or state.subjects.get(subject, {})
            before = known.get(watch.key, Partial())
            after, matched = step(watch.rule.when, watch.timing, before, mark, clock_ms)
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
    seqs, times_us, subjects = candidates.columns[:3]
    columns = dict(zip(candidates.names, candidates.columns, strict=True))
    contract, origin, epoch = candidates.contract, candidates.origin, candidates.epoch

    def marks(bits_by_row: Mapping[int, int]) -> list[tuple[str, Mark]]:
        made = [
            (subjects[row], Mark(times_us[row], EventId(contract, origin, epoch, seqs[row]), bits))
            for row, bits in bits_by_row.items()
        ]
        return sorted(made, key=lambda pair: pair[1])

    found = satisfied(listening, columns, len(seqs))
    return [(watch, marks(bits)) for _, (watch, bits) in sorted(found.items(), key=lambda item: item[0])]


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
    )


def _because(rule: Rule, subject: str, matched: tuple[Mark, ...]) -> str:
    wanted = "; ".join(describe(condition) for condition in conditions(rule))
    what = f"all of: {wanted}" if isinstance(rule.when, AllOf) else f"{len(matched)} times {wanted}"
    took_s = (matched[-1].time_us - matched[0].time_us) / US_PER_S
    return (
        f"{rule.title}: {rule.subject} {subject} had {what}; in {took_s:g} s, {rule.when.within_s} s allowed, "
        f"from {_utc(matched[0].time_us)} to {_utc(matched[-1].time_us)}."
    )


def _utc(time_us: int) -> str:
    """Return an event time as text; one that no calendar holds stays a number."""
    try:
        return datetime.fromtimestamp(time_us / US_PER_S, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{time_us} us"
