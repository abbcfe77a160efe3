"""The evaluator: which rules an event concerns, what is remembered and forgotten, what a decision says."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.decisions import BECAUSE_CHARS_MAX
from contracts.rules import (
    WORD_CHARS_MAX,
    AllOf,
    Comparison,
    Condition,
    CountOf,
    Operator,
    Rule,
    Scalar,
)
from flink_jobs.triggers.core import conditions as meaning
from flink_jobs.triggers.core import forgetting, partials, state_codec
from flink_jobs.triggers.core.conditions import describe, holds
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.matching import MARKS_PER_SET_MAX
from flink_jobs.triggers.core.rule_set import IDLE_SLACK_MS, prepare, satisfied
from tests.flink_jobs.patterns import (
    ALL_OF_AB,
    NOW_MS,
    ROWS,
    RULES,
    THREE_OF_A,
    UNHURRIED,
    US_PER_S,
    WITHIN_S,
    Seen,
    condition,
    events_of,
    message,
    rule,
    run,
    run_singly,
)


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


@UNHURRIED
@given(
    value=st.sampled_from(["a", "B", "", 0, 1, 1.0, True, False, None, 0.5, 2**60, float("nan")]),
    wanted=st.sampled_from(["a", "b", "", 0, 1, 1.0, True, False, 0.5, 2**60]),
    op=st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "contains", "in", "contains_any", "contains_none"]),
)
def test_a_test_made_ready_says_what_the_comparison_means(value: object, wanted: Scalar, op: Operator) -> None:
    listed = op in ("in", "contains_any", "contains_none")
    comparison = Comparison("f", op, (wanted, "a") if listed else wanted)
    assert meaning.test_of(comparison)(value) == holds(comparison, value)


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


def test_events_outside_of_a_rules_time_do_not_concern_it() -> None:
    at = [dt.datetime.fromtimestamp(s, dt.UTC) for s in (2, 6)]
    limited = replace(rule(CountOf(condition("a"), 1, WITHIN_S)), effective_from=at[0], effective_until=at[1])
    every_second = events_of([(s, "x", "a") for s in range(9)])
    assert [d.event_time_us // US_PER_S for d in run_singly(prepare([limited]), every_second)] == [2, 3, 4, 5]


def test_rules_of_another_subject_or_contract_do_not_listen() -> None:
    events = events_of([(0, "x", "a"), (1, "x", "a"), (2, "x", "a")])
    assets = prepare([replace(rule(THREE_OF_A), subject="asset")])
    assert run(assets, [events]) == []
    elsewhere = message(events, contract="purchases")
    assert evaluate(prepare([rule(THREE_OF_A)]), partials.EMPTY, elsewhere, NOW_MS)[0].subjects == {}


def test_what_comes_too_late_is_for_the_record_only() -> None:
    patient = replace(rule(CountOf(condition("a"), 1, WITHIN_S)), act_within_s=60, priority=7, audience="东区团队")
    event_ms = NOW_MS - 60_000
    events = [Seen(0, event_ms // 1_000, "x", "a")]
    found = [evaluate(prepare([patient]), partials.EMPTY, message(events), NOW_MS + late)[1] for late in (0, 1)]
    assert [(d.standing, d.priority, d.audience) for made in found for d in made] == [
        ("act", 7, "东区团队"),
        ("late", 7, "东区团队"),
    ]
    assert len({d.id for made in found for d in made}) == 1, "when it is made says nothing about what it is"


def test_a_decision_says_why() -> None:
    events = events_of([(0, "x", "a"), (7, "x", "b")])
    (decision,) = run(prepare([rule(ALL_OF_AB)]), [events])
    assert decision.because == (
        'a rule: customer x had all of: clicks with event = "a"; clicks with event = "b"; in 7 s, 10 s allowed, '
        "from 1970-01-01T00:00:00.000+00:00 to 1970-01-01T00:00:07.000+00:00."
    )


def test_a_long_explanation_keeps_its_end() -> None:
    words = tuple(f"{n:03d}".ljust(WORD_CHARS_MAX, "言") for n in range(9))
    events = Comparison("event", "contains_any", (*words, "a"))
    wordy = AllOf((Condition("clicks", (events, events, events)),), WITHIN_S)
    (decision,) = run(prepare([rule(wordy)]), [events_of([(0, "x", "a")])])
    assert len(decision.because) == BECAUSE_CHARS_MAX
    assert decision.because.endswith("…; in 0 s, 10 s allowed, from 1970-01-01T00:00:00.000+00:00 to "
                                     "1970-01-01T00:00:00.000+00:00.")  # fmt: skip
    assert "or one of 2 others" in describe(Condition("clicks", (events,)))
