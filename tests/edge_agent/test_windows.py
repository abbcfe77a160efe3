"""Every event is in exactly the windows that the definition says, whatever the chunks, the order and the restarts."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import SHAPE, Measure, WindowKind
from contracts.bundle import Windows as Plan
from edge_agent.core.windows.held import ClosedWindow, Summary
from edge_agent.core.windows.marks import WindowMark, plan_key
from edge_agent.core.windows.open_windows import Limits
from tests.edge_agent.twins import (
    SENSORS,
    TWINS,
    Event,
    Twin,
    chunked,
    events_of,
    run,
    sessions,
    sliding,
    story,
    tumbling,
)  # fmt: skip

SEEDS = st.integers(0, 2**32 - 1)
GRIDS = (tumbling(3), sliding(6, 2), sliding(4, 4), sliding(10, 1))
SESSIONS = (sessions(2), sessions(3, 10))
TIGHT = (Limits(), Limits(windows=3), Limits(idle_rows=5), Limits(span_rows=12), Limits(size_bytes=4_000))
ROOMY = Limits()
STORIES = settings(deadline=None, max_examples=30)

Key = tuple[str, int]
both = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)


def starts_of(plan: Plan, event: Event) -> list[int]:
    """Return the beginnings of an event's windows, by the definition of the grid."""
    slide_us, length_us = plan.pane_ms * 1_000, plan.window_ms * 1_000
    newest = event.time_us // slide_us * slide_us
    starts = range(newest, newest - length_us, -slide_us)
    return [start for start in starts if start <= event.time_us < start + length_us]


def sessions_of(plan: Plan, chunks: Sequence[Sequence[Event]]) -> list[list[Event]]:
    """Return the sessions by the definition, a loop over single events; chunks matter for late events alone."""
    assert plan.gap_ms is not None
    gap_us, stretch_us = plan.gap_ms * 1_000, plan.window_ms * 1_000
    opened: dict[str, list[Event]] = {}
    found: list[list[Event]] = []

    def belongs(event: Event, run: list[Event]) -> bool:
        newest = max(other.time_us for other in run)
        return event.time_us - newest <= gap_us and event.time_us // stretch_us == run[0].time_us // stretch_us

    for chunk in chunks:
        late: dict[str, list[Event]] = {}
        for event in sorted(chunk, key=lambda event: (event.time_us, event.seq)):
            run = opened.get(event.subject)
            if run is not None and event.time_us < run[0].time_us:
                before = late.get(event.subject)
                if before is None or not belongs(event, before):
                    before = late[event.subject] = []
                    found.append(before)
                before.append(event)
            elif run is not None and belongs(event, run):
                run.append(event)
            else:
                opened[event.subject] = [event]
                found.append(opened[event.subject])
    return found


def by_window(closed: Iterable[ClosedWindow]) -> dict[Key, list[ClosedWindow]]:
    found: dict[Key, list[ClosedWindow]] = defaultdict(list)
    for row in closed:
        found[row.mark.subject, row.mark.start_us].append(row)
    return found


def check_row(row: ClosedWindow, events: Sequence[Event]) -> None:
    """Compare one row with what numpy says of its events."""
    values = np.array([event.values for event in events])
    last = max(events, key=lambda event: (event.time_us, event.seq))
    median, p90, p99 = np.quantile(values, (0.5, 0.9, 0.99), axis=0)
    expected = {
        Measure.SUM: values.sum(axis=0), Measure.MIN: values.min(axis=0), Measure.MAX: values.max(axis=0),
        Measure.MEAN: values.mean(axis=0), Measure.VARIANCE: values.var(axis=0), Measure.LAST: np.array(last.values),
        Measure.P50: median, Measure.P90: p90, Measure.P99: p99,
    }  # fmt: skip
    assert set(row.summary.measures) == set(expected)
    found = np.array([row.summary.measures[measure] for measure in expected])
    wrong = np.abs(found - np.stack(list(expected.values()))) > 1e-9
    assert not wrong.any(), (row, expected)
    assert row.mark.count == len(events)
    assert row.mark.kept == sum(event.kept for event in events)
    assert (row.mark.first_seq, row.mark.last_seq) == (min(e.seq for e in events), max(e.seq for e in events))


def check_cover(expected: dict[Key, list[Event]], closed: Sequence[ClosedWindow]) -> None:
    """Compare with the definition: counts and values of each window's rows together, all of a row that is alone."""
    found = by_window(closed)
    assert set(found) == set(expected)
    for key, events in expected.items():
        rows = found[key]
        assert sum(row.mark.count for row in rows) == len(events)
        assert sum(row.mark.kept for row in rows) == sum(event.kept for event in events)
        assert min(row.mark.first_seq for row in rows) == min(event.seq for event in events)
        assert max(row.mark.last_seq for row in rows) == max(event.seq for event in events)
        for place in range(len(SENSORS)):
            values = [event.values[place] for event in events]
            assert sum(row.summary.measures[Measure.SUM][place] for row in rows) == sum(values)
            assert min(row.summary.measures[Measure.MIN][place] for row in rows) == min(values)
            assert max(row.summary.measures[Measure.MAX][place] for row in rows) == max(values)
        if len(rows) == 1:
            check_row(rows[0], events)


@both
@STORIES
@given(seed=SEEDS)
def test_every_event_is_in_the_windows_of_the_grid(twin: Twin, seed: int) -> None:
    source = story(seed)
    plan, limits = source.rng.choice(GRIDS), source.rng.choice(TIGHT)
    closed = run(twin, [plan], source.chunks, limits)
    expected: dict[Key, list[Event]] = defaultdict(list)
    for event in source.events:
        for start in starts_of(plan, event):
            expected[event.subject, start].append(event)
    check_cover(expected, closed)
    assert sum(row.mark.count for row in closed) == len(source.events) * plan.overlap
    assert {row.length_ms for row in closed} <= {plan.window_ms}


@both
@STORIES
@given(seed=SEEDS)
def test_a_window_of_events_in_order_is_one_row(twin: Twin, seed: int) -> None:
    source = story(seed, in_order=True)
    plan = source.rng.choice(GRIDS)
    closed = run(twin, [plan], source.chunks, ROOMY)
    assert all(len(rows) == 1 for rows in by_window(closed).values())


@both
@STORIES
@given(seed=SEEDS)
def test_runs_of_events_are_the_sessions_of_the_definition(twin: Twin, seed: int) -> None:
    source = story(seed)
    plan = source.rng.choice(SESSIONS)
    closed = run(twin, [plan], source.chunks, ROOMY)
    expected = sessions_of(plan, source.chunks)
    assert len(closed) == len(expected)
    by_place = {(row.mark.first_seq, row.mark.subject, row.mark.start_us): row for row in closed}
    for events in expected:
        times = [event.time_us for event in events]
        row = by_place[min(event.seq for event in events), events[0].subject, min(times)]
        check_row(row, events)
        assert row.length_ms == (max(times) - min(times)) // 1_000 + 1
        assert row.length_ms <= plan.window_ms


@both
@STORIES
@given(seed=SEEDS)
def test_sessions_closed_by_a_limit_lose_and_double_nothing(twin: Twin, seed: int) -> None:
    source = story(seed)
    closed = run(twin, [source.rng.choice(SESSIONS)], source.chunks, source.rng.choice(TIGHT))
    assert sum(row.mark.count for row in closed) == len(source.events)
    assert sum(row.mark.kept for row in closed) == sum(event.kept for event in source.events)
    for place in range(len(SENSORS)):
        found = sum(row.summary.measures[Measure.SUM][place] for row in closed)
        assert found == sum(event.values[place] for event in source.events)


@both
@pytest.mark.parametrize("plan", [*GRIDS, *SESSIONS], ids=lambda plan: f"{plan.kind.value}-{plan.window_ms}")
@settings(deadline=None, max_examples=20)
@given(seed=SEEDS)
def test_windows_refilled_from_their_marks_close_as_if_nothing_had_happened(twin: Twin, plan: Plan, seed: int) -> None:
    source = story(seed)
    rng, limits = source.rng, source.rng.choice(TIGHT)
    plain, restarted = (twin.windows([plan], (), limits) for _ in range(2))
    closed: tuple[list[ClosedWindow], list[ClosedWindow]] = ([], [])
    factor, past = 1, []
    for chunk in source.chunks:
        if rng.random() < 0.1:
            factor = rng.choice([1, 2, 3])
            plain.coarsen(factor)
        if rng.random() < 0.2:
            restarted = restart(twin, plan, restarted.marks, limits, past, rng.randint(1, 9))
        restarted.coarsen(factor)
        closed[0].extend(plain.add(twin.readings(chunk)))
        closed[1].extend(restarted.add(twin.readings(chunk)))
        assert set(restarted.marks) == set(plain.marks)
        check_open(plan, plain.marks)
        past += chunk
    closed[0].extend(plain.close_all())
    closed[1].extend(restarted.close_all())
    assert sorted(map(comparable, closed[1])) == sorted(map(comparable, closed[0]))
    assert sum(row.mark.count for row in closed[0]) == len(source.events) * (plan.overlap if plan.gap_ms is None else 1)


def restart(
    twin: Twin, plan: Plan, marks: tuple[WindowMark, ...], limits: Limits, past: Sequence[Event], size: int
) -> Any:
    """Return windows made from marks that went through their stored form, filled again in other chunks."""
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(marks), type=tuple[WindowMark, ...])
    found = twin.windows([plan], stored, limits)
    resume = found.resume_seq(len(past))
    assert found.is_whole() == (not marks)
    for chunk in chunked([event for event in past if event.seq >= resume], size):
        found.refill(twin.readings(chunk))
    assert found.is_whole()
    assert found.orphans == ()
    return found


def check_open(plan: Plan, marks: Sequence[WindowMark]) -> None:
    """Nothing is held that no open window has."""
    newest: dict[str, int] = {}
    for mark in marks:
        newest[mark.subject] = max(mark.start_us, newest.get(mark.subject, mark.start_us))
    if plan.kind is not WindowKind.SESSION:
        assert all(mark.start_us > newest[mark.subject] - plan.window_ms * 1_000 * mark.factor for mark in marks)
    else:
        assert len(newest) == len(marks)


def comparable(row: ClosedWindow) -> bytes:
    rounded = {measure: [round(value, 9) for value in values] for measure, values in row.summary.measures.items()}
    return msgspec.json.encode(msgspec.structs.replace(row, summary=Summary(rounded)))


@STORIES
@given(seed=SEEDS)
def test_both_implementations_write_the_same_rows(seed: int) -> None:
    source = story(seed)
    plan, limits = source.rng.choice([*GRIDS, *SESSIONS]), source.rng.choice(TIGHT[:-1])  # sizes differ
    full, lite = (run(twin, [plan], source.chunks, limits) for twin in TWINS)
    assert list(map(comparable, lite)) == list(map(comparable, full))


@both
@STORIES
@given(seed=SEEDS)
def test_plans_share_a_stream_and_see_only_their_own_sensors(twin: Twin, seed: int) -> None:
    plans = [tumbling(3, sensors=("b",)), sliding(6, 2, sensors=("a", "b")), sessions(2, sensors=("b", "a"))]
    chunks = [[e._replace(values=e.values[::-1]) for e in chunk] for chunk in story(seed).chunks]
    assert twin.windows(plans, (), ROOMY).sensors == ("b", "a")
    together = run(twin, plans, chunks, ROOMY)
    for plan in plans:
        places = [("b", "a").index(sensor) for sensor in plan.sensors]
        picked = [[e._replace(values=tuple(e.values[place] for place in places)) for e in chunk] for chunk in chunks]
        mine = [comparable(row) for row in together if row.plan == plan]
        assert mine == [comparable(row) for row in run(twin, [plan], picked, ROOMY)]


@both
@pytest.mark.parametrize(("apart_us", "rows"), [(2_000, 1), (2_001, 2)])
@pytest.mark.parametrize("size", [1, 2])
def test_events_a_gap_apart_are_one_session(twin: Twin, apart_us: int, rows: int, size: int) -> None:
    events = events_of([("x", 1, True), ("x", 1 + apart_us, True)])
    assert len(run(twin, [sessions(2)], chunked(events, size), ROOMY)) == rows


@both
def test_a_source_that_changed_is_noticed(twin: Twin) -> None:
    events = events_of([("x", 1, True), ("x", 2, True)])
    opened = twin.windows([tumbling(10)], (), ROOMY)
    opened.add(twin.readings(events))
    restarted = twin.windows([tumbling(10)], opened.marks, ROOMY)
    restarted.refill(twin.readings([events[0], events[1]._replace(subject="y")]))
    assert not restarted.is_whole()


@both
def test_a_refill_passes_over_events_of_a_session_that_a_limit_closed(twin: Twin) -> None:
    plan, limits = sessions(2), Limits(idle_rows=2)
    rows = [("y", 0), ("x", 5_000), ("y", 1), ("y", 2), ("y", 3), ("x", 4_000), ("x", 5_500)]
    events = events_of([(subject, time_us, True) for subject, time_us in rows])
    opened = twin.windows([plan], (), limits)
    closed = [row for event in events for row in opened.add(twin.readings([event]))]
    assert [(row.mark.subject, row.mark.count) for row in closed] == [("x", 1)]
    restart(twin, plan, opened.marks, limits, events, 3)


@both
def test_marks_of_plans_that_are_gone_are_handed_back(twin: Twin) -> None:
    opened = twin.windows([tumbling(10), sessions(5)], (), ROOMY)
    opened.add(twin.readings(events_of([("x", 1, True)])))
    restarted = twin.windows([sessions(5), tumbling(20)], opened.marks, ROOMY)
    assert [mark.plan for mark in restarted.orphans] == [plan_key(tumbling(10))]
    assert [mark.plan for mark in restarted.marks] == [plan_key(sessions(5))]


def test_a_mark_keeps_its_plan_when_only_what_rows_say_changes() -> None:
    assert plan_key(tumbling(10)) == plan_key(tumbling(10, measures=SHAPE, sketch=True))
    assert len({plan_key(plan) for plan in (tumbling(10), tumbling(20), sliding(10, 5), sessions(5, 10))}) == 4
