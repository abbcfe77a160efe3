"""Rules and events of few kinds, and a reader that keeps everything and tries every window."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from msgspec import Struct

from contracts.candidates import Candidates, shard_of
from contracts.decisions import Decision
from contracts.rules import (
    Aggregate,
    AllOf,
    Comparison,
    Condition,
    CountOf,
    Pattern,
    Rule,
    SequenceOf,
    Step,
    ThresholdOf,
    conditions,
)
from flink_jobs.triggers.core import partials
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.matching import MARKS_PER_SET_MAX
from flink_jobs.triggers.core.partials import ShardState
from flink_jobs.triggers.core.rule_set import RuleSet

UNHURRIED = settings(deadline=None)  # a busy machine is no finding

NOW_MS = 1_800_000_000_000
US_PER_S = 1_000_000
WITHIN_S = 10


class Seen(Struct, frozen=True):
    """One event: its number, its time in seconds, who it is about and what was done."""

    seq: int
    at_s: int
    subject: str
    kind: str


def rule(pattern: Pattern, cooldown_s: int = 0, version: int = 1) -> Rule:
    return Rule("r", version, "a rule", "us", "customer", pattern, "intent", "action", cooldown_s)


def condition(kind: str) -> Condition:
    return Condition("clicks", (Comparison("event", "eq", kind),))


def one_of(*kinds: str) -> Condition:
    return Condition("clicks", (Comparison("event", "in", kinds),))


def worth(aggregate: Aggregate, op: Literal["lt", "ge"], value: float, at_least: int) -> ThresholdOf:
    return ThresholdOf(condition("a"), aggregate, "worth", op, value, WITHIN_S, at_least)


ALL_OF_AB = AllOf((condition("a"), condition("b")), WITHIN_S)
THREE_OF_A = CountOf(condition("a"), 3, WITHIN_S)
TWO_OF_A_IN_A_ROW = CountOf(condition("a"), 2, WITHIN_S, among=one_of("a", "b"))
A_THEN_B_SOON_THEN_A = SequenceOf((Step(condition("a")), Step(condition("b"), 4), Step(condition("a"))), WITHIN_S)
A_THEN_C_WITHOUT_B = SequenceOf((Step(condition("a")), Step(condition("c"), None, (condition("b"),))), WITHIN_S)
TANGLED = SequenceOf(  # a step may be what another step must not come after, and an event several steps
    (
        Step(one_of("a", "b")),
        Step(one_of("b", "c"), 6, (condition("a"),)),
        Step(condition("c"), None, (condition("b"), condition("a"))),
    ),
    WITHIN_S,
)


def message(events: Sequence[Seen], sealed_at_ms: int = NOW_MS, contract: str = "clicks") -> Candidates:
    return Candidates(
        shard=shard_of("s"),
        ruleset=0,
        contract=contract,
        contract_version="1.0.0",
        subject_kind="customer",
        origin="collector",
        epoch=1,
        sealed_at_ms=sealed_at_ms,
        names=("seq", "occurred_at", "user_id", "event", "worth"),
        columns=(
            [e.seq for e in events],
            [e.at_s * US_PER_S for e in events],
            [e.subject for e in events],
            [e.kind for e in events],
            [e.at_s for e in events],
        ),
    )


def run(rules: RuleSet, batches: Sequence[Sequence[Seen]], state: ShardState = partials.EMPTY) -> list[Decision]:
    made: list[Decision] = []
    for batch in batches:
        state, decisions = evaluate(rules, state, message(batch), NOW_MS)
        made.extend(decisions)
    return made


def run_singly(rules: RuleSet, events: Sequence[Seen]) -> list[Decision]:
    return run(rules, [[event] for event in events])


def satisfies(event: Seen, wanted: Condition) -> bool:
    (comparison,) = wanted.where
    return event.kind == comparison.value or (isinstance(comparison.value, tuple) and event.kind in comparison.value)


def completed(pattern: Pattern, window: Sequence[Seen]) -> Sequence[Seen]:
    """Return the events by which a window completes a pattern, by trying every choice of events."""
    match pattern:
        case CountOf(condition=wanted, at_least=at_least):
            last = window[-at_least:]
            return last if len(last) == at_least and all(satisfies(event, wanted) for event in last) else []
        case AllOf(conditions=all_wanted):
            found = [next((e for e in reversed(window) if satisfies(e, wanted)), None) for wanted in all_wanted]
            return [e for e in found if e is not None] if None not in found else []
        case ThresholdOf(aggregate=aggregate, op=op, value=value, at_least=at_least):
            if len(window) < at_least:
                return []
            values = [event.at_s for event in window]  # of the field `worth`, which is the time once more
            total = {"sum": sum(values), "mean": Fraction(sum(values), len(values)), "max": max(values)}[aggregate]
            return window if (total >= value if op == "ge" else total < value) else []
        case SequenceOf(steps=steps):
            choices = [
                choice
                for choice in combinations(range(len(window)), len(steps))
                if choice[-1] == len(window) - 1 and follows(steps, window, choice)
            ]
            latest = max(choices, key=lambda choice: choice[::-1], default=())
            return [window[at] for at in latest]


def follows(steps: tuple[Step, ...], window: Sequence[Seen], choice: tuple[int, ...]) -> bool:
    if not all(satisfies(window[at], step.condition) for at, step in zip(choice, steps, strict=True)):
        return False
    for before, at, step in zip(choice, choice[1:], steps[1:], strict=False):
        if step.after_s_max is not None and window[at].at_s - window[before].at_s > step.after_s_max:
            return False
        if any(satisfies(event, unwanted) for event in window[before + 1 : at] for unwanted in step.without):
            return False
    return True


def oracle(one: Rule, arrivals: Sequence[Seen]) -> list[tuple[str, frozenset[int]]]:
    """Return (subject, seqs) of each decision: after every arrival, every window over everything ever seen is tried."""
    within_s, decided = one.when.within_s, []
    kept: dict[str, list[Seen]] = {}
    spent_s: dict[str, int] = {}
    for event in arrivals:
        mine = kept.setdefault(event.subject, [])
        newest_s = max((e.at_s for e in mine), default=event.at_s)
        late = event.at_s < newest_s - within_s
        concerned = any(satisfies(event, wanted) for wanted in conditions(one))
        if not concerned or event in mine or late or event.at_s <= spent_s.get(event.subject, -1):
            continue
        mine.append(event)
        for end in sorted(mine, key=lambda e: (e.at_s, e.seq)):
            window = [
                e
                for e in sorted(mine, key=lambda e: (e.at_s, e.seq))
                if end.at_s - within_s <= e.at_s
                and (e.at_s, e.seq) <= (end.at_s, end.seq)
                and e.at_s > spent_s.get(event.subject, -1)
            ]
            match = completed(one.when, window) if event in window else []
            if match:
                decided.append((event.subject, frozenset(e.seq for e in match)))
                spent_s[event.subject] = max(e.at_s for e in match) + one.cooldown_s
                break
    return decided


def decided(decisions: Sequence[Decision]) -> list[tuple[str, frozenset[int]]]:
    return [(d.subject, frozenset(event.seq for event in d.events)) for d in decisions]


def events_of(rows: Sequence[tuple[int, str, str]]) -> list[Seen]:
    return [Seen(seq, at_s, subject, kind) for seq, (at_s, subject, kind) in enumerate(rows)]


ROWS_MAX = MARKS_PER_SET_MAX + 4
# Few enough of each kind that the limit on like marks cannot bite: the oracle has no limits.
ROWS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("xy"), st.sampled_from("abc")), max_size=ROWS_MAX)
PATTERNS = [
    ALL_OF_AB, THREE_OF_A, TWO_OF_A_IN_A_ROW, A_THEN_B_SOON_THEN_A, A_THEN_C_WITHOUT_B, TANGLED,
    worth("sum", "ge", 25, 1), worth("mean", "lt", 7, 2), worth("max", "ge", 12, 2),
]  # fmt: skip
RULES = st.builds(rule, st.sampled_from(PATTERNS), st.sampled_from([0, 5, 30]))
