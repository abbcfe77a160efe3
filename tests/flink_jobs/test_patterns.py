"""Patterns against a reader that keeps everything and tries every window."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.decisions import Decision, EventId, decision_id
from contracts.rules import (
    Aggregate,
    Rule,
    SequenceOf,
    Step,
    ThresholdOf,
)
from flink_jobs.triggers.core import matching, partials, state_codec
from flink_jobs.triggers.core.evaluator import evaluate
from flink_jobs.triggers.core.matching import MARKS_PER_SET_MAX
from flink_jobs.triggers.core.rule_set import prepare
from tests.flink_jobs.patterns import (
    NOW_MS,
    ROWS,
    RULES,
    THREE_OF_A,
    TWO_OF_A_IN_A_ROW,
    UNHURRIED,
    US_PER_S,
    WITHIN_S,
    Seen,
    condition,
    decided,
    events_of,
    message,
    oracle,
    rule,
    run,
    run_singly,
)


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


def test_a_run_is_broken_by_what_it_is_among_and_by_nothing_else() -> None:
    rules = prepare([rule(TWO_OF_A_IN_A_ROW)])
    assert run_singly(rules, events_of([(0, "x", "a"), (1, "x", "b"), (2, "x", "a")])) == []
    assert len(run_singly(rules, events_of([(0, "x", "a"), (1, "x", "c"), (2, "x", "a")]))) == 1


def test_a_chain_takes_another_way_when_the_nearest_is_barred() -> None:
    steps = (Step(condition("a")), Step(condition("b"), None, (condition("c"),)), Step(condition("d")))
    rules = prepare([rule(SequenceOf(steps, WITHIN_S))])
    barred = events_of([(0, "x", "a"), (1, "x", "b"), (2, "x", "c"), (3, "x", "b"), (4, "x", "d")])
    assert decided(run_singly(rules, barred)) == [("x", frozenset({0, 1, 4}))]


def test_what_breaks_a_run_is_bounded_and_never_forgotten_before_what_it_breaks() -> None:
    rules = prepare([rule(TWO_OF_A_IN_A_ROW)])
    state, made = partials.EMPTY, list[Decision]()
    for seq in range(200):
        event = Seen(seq, seq // 50, "x", "a" if seq % 2 == 0 else "b")
        state, decisions = evaluate(rules, state, message([event]), NOW_MS)
        made += decisions
    (match,) = state.subjects["x"].values()
    assert (made, len(match.marks)) == ([], TWO_OF_A_IN_A_ROW.at_least + MARKS_PER_SET_MAX)


@pytest.mark.parametrize(
    ("aggregate", "values", "counted"),
    [
        ("sum", [2, None, "3", True, 1.5, float("nan"), float("inf")], [2, 1.5]),
        ("distinct", ["a", 1, 1.0, True, None, "a", float("nan")], ["a", 1, 1.0, True, "a"]),
    ],
)
def test_only_values_that_mean_something_count(aggregate: Aggregate, values: list[Any], counted: list[Any]) -> None:
    rules = prepare([rule(ThresholdOf(condition("a"), aggregate, "worth", "gt", 99, WITHIN_S))])
    events = events_of([(at, "x", "a") for at in range(len(values))])
    columns = message(events).columns
    state, _ = evaluate(rules, partials.EMPTY, replace(message(events), columns=(*columns[:-1], values)), NOW_MS)
    (match,) = state.subjects["x"].values()
    assert [repr(mark.value) for mark in match.marks] == list(map(repr, counted))
    assert state_codec.decode(state_codec.encode(state.subjects["x"])) == state.subjects["x"]


def test_different_values_are_counted_once_each() -> None:
    rules = prepare([rule(ThresholdOf(condition("a"), "distinct", "worth", "ge", 3, WITHIN_S))])
    times = [0, 0, 1, 1, 1, 5]
    assert [d.event_time_us // US_PER_S for d in run_singly(rules, events_of([(t, "x", "a") for t in times]))] == [5]


def test_a_threshold_is_about_so_many_events_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "LEVEL_MARKS_MAX", 10)
    rules = prepare([rule(ThresholdOf(condition("a"), "max", "worth", "ge", 99, WITHIN_S))])
    state = partials.EMPTY
    for seq in range(50):
        state, _ = evaluate(rules, state, message([Seen(seq, seq // 50, "x", "a")]), NOW_MS)
    (match,) = state.subjects["x"].values()
    assert len(match.marks) == 10
