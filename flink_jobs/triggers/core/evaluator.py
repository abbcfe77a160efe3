"""Rules over one candidate message: `evaluate(rules, state, candidates) -> (state, decisions)`.

State is kept per rule id, version, pattern and subject, so a new version starts afresh, and so does the same version
published with another pattern. Rows of a message are taken in order of event time.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from contracts.candidates import Candidates
from contracts.decisions import Decision, EventId, decision_id
from contracts.rules import AllOf, Condition, Rule, conditions
from flink_jobs.triggers.core import partials
from flink_jobs.triggers.core.conditions import describe, satisfied_rows
from flink_jobs.triggers.core.matching import Timing, step
from flink_jobs.triggers.core.partials import Mark, Partial, ShardState

US_PER_S: Final = 1_000_000
MS_PER_S: Final = 1_000
SWEEP_EVERY_MS: Final = 10_000  # forgetting costs a walk over the shard; ten seconds more of memory cost nothing
IDLE_SLACK_MS: Final = 600_000  # a redelivery after a restart comes within minutes and must still find its marks
PARTIALS_PER_SHARD_MAX: Final = 4_096  # partial matches; some 100 bytes each, and the state is written per message


class Watch(Struct, frozen=True):
    """A rule made ready: its key in the state, its times, and its conditions by contract as (bit, condition)."""

    rule: Rule
    key: str
    timing: Timing
    keep_ms: int
    by_contract: dict[str, tuple[tuple[int, Condition], ...]]


class RuleSet(Struct, frozen=True):
    """All live rules made ready, by (subject kind, contract) that they listen to, and by key."""

    listening: dict[tuple[str, str], tuple[Watch, ...]]
    by_key: dict[str, Watch]


def prepare(rules: Iterable[Rule]) -> RuleSet:
    """Make rules ready for evaluation."""
    listening: dict[tuple[str, str], list[Watch]] = defaultdict(list)
    by_key: dict[str, Watch] = {}
    for rule in sorted(rules, key=lambda rule: rule.id):
        watch = _watch(rule)
        by_key[watch.key] = watch
        for contract in watch.by_contract:
            listening[rule.subject, contract].append(watch)
    return RuleSet({key: tuple(watches) for key, watches in listening.items()}, by_key)


def rule_key(rule: Rule) -> str:
    """Return the name under which the state keeps a rule's partial matches."""
    pattern = hashlib.sha256(msgspec.json.encode(rule.when)).hexdigest()[:8]
    return f"{rule.id}@{rule.version}/{pattern}"


def evaluate(
    rules: RuleSet, state: ShardState, candidates: Candidates, now_ms: int
) -> tuple[ShardState, tuple[Decision, ...]]:
    """Return the shard's state after a candidate message, and the decisions that it completed.

    `now_ms` is the wall clock: it dates the decisions and bounds the shard's own clock, it decides nothing.
    """
    clock_ms = max(state.clock_ms, min(candidates.sealed_at_ms, now_ms))
    matches = dict(state.matches)
    decisions: list[Decision] = []
    for watch in rules.listening.get((candidates.subject_kind, candidates.contract), ()):
        marks = _marks(watch, candidates)
        if not marks:
            continue
        subjects = dict(matches.get(watch.key, {}))
        for subject, mark in marks:
            before = subjects.get(subject, Partial())
            subjects[subject], matched = step(watch.rule.when, watch.timing, before, mark, clock_ms)
            if matched:
                decisions.append(_decision(watch.rule, subject, matched, candidates.sealed_at_ms, now_ms))
        matches[watch.key] = subjects
    return _swept(rules, ShardState(clock_ms, state.swept_ms, matches)), tuple(decisions)


def _watch(rule: Rule) -> Watch:
    by_contract: dict[str, list[tuple[int, Condition]]] = defaultdict(list)
    for bit, condition in enumerate(conditions(rule)):
        by_contract[condition.contract].append((bit, condition))
    within_s = rule.when.within_s
    return Watch(
        rule=rule,
        key=rule_key(rule),
        timing=Timing(within_s * US_PER_S, rule.cooldown_s * US_PER_S),
        keep_ms=(2 * within_s + rule.cooldown_s) * MS_PER_S + IDLE_SLACK_MS,
        by_contract={contract: tuple(pairs) for contract, pairs in by_contract.items()},
    )


def _marks(watch: Watch, candidates: Candidates) -> list[tuple[str, Mark]]:
    """Return (subject, mark) of every row that satisfies a condition of the rule, in order of event time."""
    seqs, times_us, subjects = candidates.columns[:3]
    columns = dict(zip(candidates.names, candidates.columns, strict=True))
    satisfied: dict[int, int] = defaultdict(int)
    for bit, condition in watch.by_contract[candidates.contract]:
        for row in satisfied_rows(condition, columns, len(seqs)):
            satisfied[row] |= 1 << bit
    contract, origin, epoch = candidates.contract, candidates.origin, candidates.epoch
    marks = [
        (subjects[row], Mark(times_us[row], EventId(contract, origin, epoch, seqs[row]), bits))
        for row, bits in satisfied.items()
    ]
    return sorted(marks, key=lambda pair: pair[1])


def _swept(rules: RuleSet, state: ShardState) -> ShardState:
    """Forget rules that are no longer live and subjects that have been idle, and keep within the limit."""
    crowded = partials.count(state) > PARTIALS_PER_SHARD_MAX
    if state.clock_ms - state.swept_ms < SWEEP_EVERY_MS and not crowded:
        return state
    kept: dict[str, dict[str, Partial]] = {}
    for key, subjects in state.matches.items():
        if (watch := rules.by_key.get(key)) is None:
            continue
        alive_ms = state.clock_ms - watch.keep_ms
        fresh = {subject: partial for subject, partial in subjects.items() if partial.touched_ms >= alive_ms}
        if fresh:
            kept[key] = fresh
    return _bounded(ShardState(state.clock_ms, state.clock_ms, kept))


def _bounded(state: ShardState) -> ShardState:
    """Drop the partial matches that have been idle longest until no more than the limit are left."""
    over = partials.count(state) - PARTIALS_PER_SHARD_MAX
    if over <= 0:
        return state
    idle = sorted(
        (p.touched_ms, key, subject) for key, subjects in state.matches.items() for subject, p in subjects.items()
    )
    dropped = {(key, subject) for _, key, subject in idle[:over]}
    kept = {
        key: {subject: p for subject, p in subjects.items() if (key, subject) not in dropped}
        for key, subjects in state.matches.items()
    }
    return ShardState(state.clock_ms, state.swept_ms, {key: subjects for key, subjects in kept.items() if subjects})


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
