"""The evaluator against a reader that keeps everything and tries every window."""

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from contracts.candidates import Candidates, shard_of
from contracts.decisions import Decision, EventId, decision_id
from contracts.rules import AllOf, Comparison, Condition, CountOf, Rule, conditions
from flink_jobs.triggers.core import forgetting, partials, state_codec
from flink_jobs.triggers.core.conditions import holds
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.matching import MARKS_PER_SET_MAX
from flink_jobs.triggers.core.partials import ShardState
from flink_jobs.triggers.core.rule_set import IDLE_SLACK_MS, RuleSet, prepare, satisfied

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


def rule(pattern: AllOf | CountOf, cooldown_s: int = 0, version: int = 1) -> Rule:
    return Rule("r", version, "a rule", "us", "customer", pattern, "intent", "action", cooldown_s)


def condition(kind: str) -> Condition:
    return Condition("clicks", (Comparison("event", "eq", kind),))


ALL_OF_AB = AllOf((condition("a"), condition("b")), WITHIN_S)
THREE_OF_A = CountOf(condition("a"), 3, WITHIN_S)


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
        names=("seq", "occurred_at", "user_id", "event"),
        columns=(
            [e.seq for e in events],
            [e.at_s * US_PER_S for e in events],
            [e.subject for e in events],
            [e.kind for e in events],
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


def oracle(one: Rule, arrivals: Sequence[Seen]) -> list[tuple[str, frozenset[int]]]:
    """Return (subject, seqs) of each decision: after every arrival, every window over everything ever seen is tried."""
    wanted = [c.where[0].value for c in conditions(one)]
    within_s, decided = one.when.within_s, []
    kept: dict[str, list[Seen]] = {}
    spent_s: dict[str, int] = {}
    for event in arrivals:
        mine = kept.setdefault(event.subject, [])
        newest_s = max((e.at_s for e in mine), default=event.at_s)
        late = event.at_s < newest_s - within_s
        if event.kind not in wanted or event in mine or late or event.at_s <= spent_s.get(event.subject, -1):
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
            if isinstance(one.when, CountOf):
                match = window[-one.when.at_least :] if len(window) >= one.when.at_least else []
            else:
                last = [next((e for e in reversed(window) if e.kind == kind), None) for kind in wanted]
                match = [e for e in last if e is not None] if None not in last else []
            if match:
                decided.append((event.subject, frozenset(e.seq for e in match)))
                spent_s[event.subject] = max(e.at_s for e in match) + one.cooldown_s
                break
    return decided


def decided(decisions: Sequence[Decision]) -> list[tuple[str, frozenset[int]]]:
    return [(d.subject, frozenset(event.seq for event in d.events)) for d in decisions]


def events_of(rows: Sequence[tuple[int, str, str]]) -> list[Seen]:
    return [Seen(seq, at_s, subject, kind) for seq, (at_s, subject, kind) in enumerate(rows)]


# Few enough of each kind that the limit on like marks cannot bite: the oracle has no limits.
ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("xy"), st.sampled_from("abc")), max_size=2 * MARKS_PER_SET_MAX
)
RULES = st.builds(rule, st.sampled_from([ALL_OF_AB, THREE_OF_A]), st.sampled_from([0, 5, 30]))


@UNHURRIED
@given(one=RULES, rows=ROWS)
def test_every_window_is_seen_whatever_the_order_of_arrival(one: Rule, rows: list[tuple[int, str, str]]) -> None:
    arrivals = events_of(rows)
    assert decided(run_singly(prepare([one]), arrivals)) == oracle(one, arrivals)


@UNHURRIED
@given(one=RULES, rows=ROWS, cuts=st.lists(st.integers(1, 5), min_size=16, max_size=16))
def test_batching_changes_nothing_for_events_in_order(
    one: Rule, rows: list[tuple[int, str, str]], cuts: list[int]
) -> None:
    arrivals = sorted(events_of(rows), key=lambda e: (e.at_s, e.seq))
    batches, at = [], 0
    for cut in cuts:
        batches.append(arrivals[at : at + cut])
        at += cut
    singly = run_singly(prepare([one]), arrivals)
    assert sorted(d.id for d in run(prepare([one]), batches)) == sorted(d.id for d in singly)


@UNHURRIED
@given(one=RULES, rows=ROWS, data=st.data())
def test_redelivered_events_change_nothing(one: Rule, rows: list[tuple[int, str, str]], data: st.DataObject) -> None:
    arrivals = events_of(rows)
    repeated = list(arrivals)
    for at in range(len(arrivals), 0, -1):
        again = data.draw(st.lists(st.sampled_from(arrivals[:at]), max_size=2))
        repeated[at:at] = again
    rules = prepare([one])
    assert run_singly(rules, repeated) == run_singly(rules, arrivals)


def test_a_match_has_one_id_whatever_the_order_of_its_events() -> None:
    events = events_of([(0, "x", "a"), (4, "x", "a"), (9, "x", "a")])
    rules = prepare([rule(THREE_OF_A)])
    ids = {tuple(d.id for d in run_singly(rules, order)) for order in permutations(events)}
    match = tuple(EventId("clicks", "collector", 1, seq) for seq in range(3))
    assert ids == {(decision_id("default", "r", 1, "x", match),)}


def test_the_edges_of_the_window_belong_to_it() -> None:
    inside = events_of([(0, "x", "a"), (5, "x", "a"), (WITHIN_S, "x", "a")])
    outside = events_of([(0, "x", "a"), (5, "x", "a"), (WITHIN_S + 1, "x", "a")])
    rules = prepare([rule(THREE_OF_A)])
    assert len(run_singly(rules, inside)) == 1
    assert run_singly(rules, outside) == []


def test_silence_lasts_for_the_cooldown() -> None:
    every_second = events_of([(at, "x", "a") for at in range(60)])
    fired = run_singly(prepare([rule(THREE_OF_A, cooldown_s=20)]), every_second)
    assert [d.event_time_us // US_PER_S for d in fired] == [2, 25, 48]


def test_a_new_version_starts_afresh() -> None:
    first, second, third = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    state, _ = evaluate(prepare([rule(THREE_OF_A)]), partials.EMPTY, message([first, second]), NOW_MS)
    state, decisions = evaluate(prepare([rule(THREE_OF_A, version=2)]), state, message([third]), NOW_MS)
    assert decisions == ()


def test_the_same_version_with_another_pattern_starts_afresh() -> None:
    first, second, third = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    wider = CountOf(condition("a"), 3, WITHIN_S + 1)
    state, _ = evaluate(prepare([rule(THREE_OF_A)]), partials.EMPTY, message([first, second]), NOW_MS)
    assert evaluate(prepare([rule(wider)]), state, message([third]), NOW_MS)[1] == ()


def test_a_deleted_rule_is_forgotten() -> None:
    (event,) = events_of([(0, "x", "a")])
    state, _ = evaluate(prepare([rule(THREE_OF_A)]), partials.EMPTY, message([event]), NOW_MS)
    assert len(state.subjects) == 1
    later_ms = NOW_MS + 60_000
    state, _ = evaluate(prepare([]), state, message([], later_ms), later_ms)
    assert len(state.subjects) == 0


def test_subjects_that_fall_silent_are_forgotten_by_the_time_of_arrival() -> None:
    rules = prepare([rule(THREE_OF_A)])
    (event,) = events_of([(0, "x", "a")])
    state, _ = evaluate(rules, partials.EMPTY, message([event]), NOW_MS)
    later_ms = NOW_MS + 2 * WITHIN_S * 1_000 + IDLE_SLACK_MS
    kept, _ = evaluate(rules, state, message([], later_ms), later_ms)
    gone, _ = evaluate(rules, kept, message([], later_ms + 60_000), later_ms + 60_000)
    assert (len(kept.subjects), len(gone.subjects)) == (1, 0)


def test_a_batch_sealed_in_the_future_makes_no_subject_forgotten() -> None:
    rules = prepare([rule(THREE_OF_A)])
    first, second, third = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    state, _ = evaluate(rules, partials.EMPTY, message([first, second]), NOW_MS)
    wrong_clock = replace(message([]), sealed_at_ms=NOW_MS * 2)
    state, _ = evaluate(rules, state, wrong_clock, NOW_MS + 1)
    assert len(evaluate(rules, state, message([third]), NOW_MS + 2)[1]) == 1


def test_a_wrong_event_time_blinds_a_rule_for_one_subject_and_only_for_a_while() -> None:
    rules = prepare([rule(THREE_OF_A)])
    poison = Seen(99, 10**9, "x", "a")
    state, _ = evaluate(rules, partials.EMPTY, message([poison]), NOW_MS)
    sound = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    state, decisions = evaluate(rules, state, message(sound), NOW_MS)
    assert decisions == ()
    later_ms = NOW_MS + 2 * WITHIN_S * 1_000 + IDLE_SLACK_MS + 60_000
    state, _ = evaluate(rules, state, message([], later_ms), later_ms)
    assert len(evaluate(rules, state, message(sound, later_ms), later_ms)[1]) == 1


def test_a_shard_keeps_within_its_limit_and_drops_the_longest_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "SUBJECTS_PER_SHARD_MAX", 30)
    rules = prepare([rule(THREE_OF_A)])
    state = partials.EMPTY
    for part in range(2):
        crowd = [Seen(n, 0, f"{part}-{n}", "a") for n in range(20)]
        state, _ = evaluate(rules, state, message(crowd, NOW_MS + part), NOW_MS + part)
    assert len(state.subjects) == 30
    assert sum(subject.startswith("1-") for subject in state.subjects) == 20


def test_marks_of_a_busy_subject_stay_bounded() -> None:
    rules = prepare([rule(ALL_OF_AB)])
    state = partials.EMPTY
    for seq in range(200):
        state, _ = evaluate(rules, state, message([Seen(seq, seq // 50, "x", "a")]), NOW_MS)
    (match,) = state.subjects["x"].values()
    assert len(match.marks) == MARKS_PER_SET_MAX


@UNHURRIED
@given(one=RULES, rows=ROWS)
def test_what_is_written_is_what_is_known(one: Rule, rows: list[tuple[int, str, str]]) -> None:
    """After every message the bytes that a restart would find decode to what the operator holds."""
    rules, state, stored = prepare([one]), partials.EMPTY, dict[str, bytes]()
    for event in events_of(rows):
        after, _ = evaluate(rules, state, message([event]), NOW_MS)
        changed, removed = partials.changes(state, after)
        stored |= {subject: state_codec.encode(matches) for subject, matches in changed.items()}
        for subject in removed:
            del stored[subject]
        state = after
        restored = partials.restored({subject: state_codec.decode(data) for subject, data in stored.items()})
        assert restored.subjects == state.subjects


VALUES = st.sampled_from(["a", "b", 0, 1, 1.0, True, False, None, 0.5])
COMPARISONS = st.builds(
    Comparison, st.sampled_from("fgh"), st.sampled_from(["eq", "ne", "ge"]), VALUES.filter(lambda v: v is not None)
)


@UNHURRIED
@given(
    wheres=st.lists(st.lists(COMPARISONS, max_size=3).map(tuple), min_size=1, max_size=5),
    rows=st.lists(st.tuples(VALUES, VALUES), max_size=5),
)
def test_the_index_finds_what_trying_everything_finds(
    wheres: list[tuple[Comparison, ...]], rows: list[tuple[object, object]]
) -> None:
    columns = {"f": [f for f, _ in rows], "g": [g for _, g in rows]}
    rules = prepare([rule(AllOf(tuple(Condition("clicks", where) for where in wheres), WITHIN_S))])
    found = satisfied(rules.listening["customer", "clicks"], columns, len(rows))
    expected = {
        row: sum(
            1 << bit
            for bit, where in enumerate(wheres)
            if all(c.field in columns and holds(c, columns[c.field][row]) for c in where)
        )
        for row in range(len(rows))
    }
    bits = next((bits for _, bits in found.values()), {})
    assert bits == {row: wanted for row, wanted in expected.items() if wanted}


def test_rules_of_another_subject_or_contract_do_not_listen() -> None:
    events = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    assets = prepare([replace(rule(THREE_OF_A), subject="asset")])
    assert run(assets, [events]) == []
    elsewhere = message(events, contract="purchases")
    assert evaluate(prepare([rule(THREE_OF_A)]), partials.EMPTY, elsewhere, NOW_MS)[0].subjects == {}


def test_a_decision_says_why() -> None:
    events = events_of([(0, "x", "a"), (7, "x", "b")])
    (decision,) = run(prepare([rule(ALL_OF_AB)]), [events])
    assert decision.because == (
        'a rule: customer x had all of: clicks with event = "a"; clicks with event = "b"; in 7 s, 10 s allowed, '
        "from 1970-01-01T00:00:00.000+00:00 to 1970-01-01T00:00:07.000+00:00."
    )
