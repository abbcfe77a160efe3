"""Percentiles, and how much of the time warming may take."""

import math

from hypothesis import given
from hypothesis import strategies as st

from federation.errors import EngineStartingError, LoginRefusedError, QueryRefusedError
from federation.warmth import (
    BUSY_SHARE,
    PAUSE_WHEN_DONE_S,
    WINDOW_QUERIES,
    Durations,
    pause_s,
    percentile,
)
from federation.warmup import may_pass

MANY = 10**9


def ran(times: int, duration_ms: float = 200.0) -> Durations:
    durations = Durations()
    for _ in range(times):
        durations.add(duration_ms)
    return durations


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= math.ceil(share * len(values))


def test_half_of_the_time_is_left_to_others() -> None:
    pause = pause_s(0.2, MANY - 1, MANY)
    assert 0.2 / (0.2 + pause) == BUSY_SHARE


def test_almost_no_queries_once_the_number_is_reached() -> None:
    assert pause_s(0.2, 5, 5) == PAUSE_WHEN_DONE_S


def test_figures_are_those_of_the_newest_runs() -> None:
    durations = ran(WINDOW_QUERIES, 900.0)
    for _ in range(WINDOW_QUERIES):
        durations.add(100.0)
    warmth = durations.warmth()
    assert warmth is not None
    assert (warmth.queries, warmth.p50_ms, warmth.p95_ms) == (2 * WINDOW_QUERIES, 100.0, 100.0)


def test_waiting_helps_against_a_missing_table_and_not_against_a_wrong_statement() -> None:
    assert may_pass(QueryRefusedError("TABLE_NOT_FOUND", "no such table", 1, 2))
    assert may_pass(EngineStartingError("starting"))
    assert may_pass(LoginRefusedError("password file not read yet"))
    assert not may_pass(QueryRefusedError("SYNTAX_ERROR", "mismatched input", 1, 2))
