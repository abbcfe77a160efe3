"""Every event is in exactly the windows that the definition says, whatever the chunks, the order and the restarts."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import SHAPE, Measure, WindowKind
from contracts.bundle import Windows as Plan
from edge_agent.core.held import ClosedWindow, Summary
from edge_agent.core.marks import WindowMark, plan_key
from edge_agent.core.open_windows import COARSE_MS_MAX, Limits
from edge_agent.core.window_rows import rows_of
from tests.edge_agent.plant import CONTRACTS, ROOT
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
    tumbling,
)  # fmt: skip

ROWS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-20_000, 20_000), st.booleans()), max_size=60)
GRIDS = st.sampled_from([tumbling(3), sliding(6, 2), sliding(4, 4), sliding(10, 1)])
PLANS = st.sampled_from([tumbling(3), sliding(6, 2), sessions(2), sessions(3, 10)])
TIGHT = st.sampled_from(
    [Limits(), Limits(windows=3), Limits(idle_rows=5), Limits(span_rows=12), Limits(size_bytes=4_000)]
)
Key = tuple[str, int]

EXAMPLES = 50


@pytest.fixture(params=TWINS, ids=lambda twin: twin.name)
def twin(request: pytest.FixtureRequest) -> Twin:
    found: Twin = request.param
    return found


def starts_of(plan: Plan, event: Event) -> list[int]:
    """Return the beginnings of an event's windows, by the definition of the grid."""
    slide_us, length_us = plan.pane_ms * 1_000, plan.window_ms * 1_000
    newest = event.time_us // slide_us * slide_us
    return [
        start for start in range(newest, newest - length_us, -slide_us) if start <= event.time_us < start + length_us
    ]


def sessions_of(plan: Plan, events: Sequence[Event]) -> dict[Key, list[Event]]:
    """Return the sessions of events whose times are in order, by the definition: a loop over single events."""
    assert plan.gap_ms is not None
    found: dict[Key, list[Event]] = {}
    newest: dict[str, Event] = {}
    starts: dict[str, int] = {}
    for event in events:
        before = newest.get(event.subject)
        stretch_us = plan.window_ms * 1_000
        if (
            before is None
            or event.time_us - before.time_us > plan.gap_ms * 1_000
            or event.time_us // stretch_us != before.time_us // stretch_us
        ):
            starts[event.subject] = event.time_us
        newest[event.subject] = event
        found.setdefault((event.subject, starts[event.subject]), []).append(event)
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
    expected = {
        Measure.SUM: values.sum(axis=0), Measure.MIN: values.min(axis=0), Measure.MAX: values.max(axis=0),
        Measure.MEAN: values.mean(axis=0), Measure.VARIANCE: values.var(axis=0), Measure.LAST: last.values,
        Measure.P50: np.quantile(values, 0.5, axis=0), Measure.P90: np.quantile(values, 0.9, axis=0),
        Measure.P99: np.quantile(values, 0.99, axis=0),
    }  # fmt: skip
    for measure, found in row.summary.measures.items():
        assert found == pytest.approx(list(expected[measure]), rel=1e-9, abs=1e-9), measure


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


@settings(deadline=None, max_examples=EXAMPLES)
@given(plan=GRIDS, rows=ROWS, size=st.integers(1, 20), limits=TIGHT)
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_every_event_is_in_the_windows_of_the_grid(
    twin: Twin, plan: Plan, rows: list[tuple[str, int, bool]], size: int, limits: Limits
) -> None:
    events = events_of(rows)
    closed = run(twin, [plan], events, size, limits)
    expected: dict[Key, list[Event]] = defaultdict(list)
    for event in events:
        for start in starts_of(plan, event):
            expected[event.subject, start].append(event)
    check_cover(expected, closed)
    assert sum(row.mark.count for row in closed) == len(events) * plan.overlap
    assert {row.length_ms for row in closed} <= {plan.window_ms}


@settings(deadline=None, max_examples=EXAMPLES)
@given(plan=st.sampled_from([sessions(2), sessions(3, 10)]), rows=ROWS, size=st.integers(1, 20))
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_events_in_order_make_the_sessions_of_the_definition(
    twin: Twin, plan: Plan, rows: list[tuple[str, int, bool]], size: int
) -> None:
    events = events_of(sorted(rows, key=lambda row: row[1]))
    closed = run(twin, [plan], events, size)
    expected = sessions_of(plan, events)
    assert len(closed) == len(expected)
    check_cover(expected, closed)
    for row in closed:
        inside = expected[row.mark.subject, row.mark.start_us]
        assert row.length_ms == (inside[-1].time_us - inside[0].time_us) // 1_000 + 1
        assert row.length_ms <= plan.window_ms


@settings(deadline=None, max_examples=EXAMPLES)
@given(rows=ROWS, size=st.integers(1, 20), limits=TIGHT)
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_late_events_make_sessions_of_their_own_and_none_is_lost(
    twin: Twin, rows: list[tuple[str, int, bool]], size: int, limits: Limits
) -> None:
    plan, events = sessions(2), events_of(rows)
    closed = run(twin, [plan], events, size, limits)
    assert sum(row.mark.count for row in closed) == len(events)
    assert sum(row.mark.kept for row in closed) == sum(event.kept for event in events)
    for place in range(len(SENSORS)):
        assert sum(row.summary.measures[Measure.SUM][place] for row in closed) == sum(e.values[place] for e in events)


@settings(deadline=None, max_examples=EXAMPLES)
@given(plan=PLANS, rows=ROWS, size=st.integers(1, 20), stop=st.integers(0, 60), limits=TIGHT, again=st.integers(1, 9))
@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_windows_refilled_from_their_marks_close_as_if_nothing_had_happened(
    twin: Twin, factor: int, plan: Plan, rows: list[tuple[str, int, bool]], size: int, stop: int, limits: Limits,
    again: int,
) -> None:  # fmt: skip
    events = events_of(rows)
    plain, restarted = (twin.windows([plan], (), limits) for _ in range(2))
    closed: tuple[list[ClosedWindow], list[ClosedWindow]] = ([], [])
    for number, chunk in enumerate(chunked(events, size)):
        if number == stop // size // 2:
            plain.coarsen(factor)
            restarted.coarsen(factor)
        if number == stop // size:
            restarted = restart(twin, plan, restarted.marks, limits, events[: chunk[0].seq], again)
            restarted.coarsen(factor if number >= stop // size // 2 else 1)
        closed[0].extend(plain.add(twin.readings(chunk)))
        closed[1].extend(restarted.add(twin.readings(chunk)))
        assert restarted.marks == plain.marks
    closed[0].extend(plain.close_all())
    closed[1].extend(restarted.close_all())
    assert [comparable(row) for row in closed[1]] == [comparable(row) for row in closed[0]]


def restart(
    twin: Twin, plan: Plan, marks: tuple[WindowMark, ...], limits: Limits, past: Sequence[Event], size: int
) -> object:
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


def comparable(row: ClosedWindow) -> object:
    rounded = {measure: [round(value, 9) for value in values] for measure, values in row.summary.measures.items()}
    return msgspec.structs.replace(row, summary=Summary(rounded))


def test_a_source_that_changed_is_noticed(twin: Twin) -> None:
    plan = tumbling(10)
    events = events_of([("x", 1, True), ("x", 2, True)])
    opened = twin.windows([plan], (), Limits())
    opened.add(twin.readings(events))
    restarted = twin.windows([plan], opened.marks, Limits())
    restarted.refill(twin.readings([events[0], events[1]._replace(subject="y")]))
    assert not restarted.is_whole()


def test_marks_of_plans_that_are_gone_are_handed_back(twin: Twin) -> None:
    opened = twin.windows([tumbling(10), sessions(5)], (), Limits())
    opened.add(twin.readings(events_of([("x", 1, True)])))
    restarted = twin.windows([sessions(5), tumbling(20)], opened.marks, Limits())
    assert [mark.plan for mark in restarted.orphans] == [plan_key(tumbling(10))]
    assert [mark.plan for mark in restarted.marks] == [plan_key(sessions(5))]


def test_a_mark_keeps_its_plan_when_only_what_rows_say_changes() -> None:
    assert plan_key(tumbling(10)) == plan_key(tumbling(10, measures=SHAPE, sketch=True))
    assert len({plan_key(plan) for plan in (tumbling(10), tumbling(20), sliding(10, 5), sessions(5, 10))}) == 4


@settings(deadline=None, max_examples=EXAMPLES)
@given(rows=ROWS, size=st.integers(1, 20))
def test_plans_share_a_stream_and_see_only_their_own_sensors(rows: list[tuple[str, int, bool]], size: int) -> None:
    plans = [tumbling(3, sensors=("b",)), sliding(6, 2, sensors=("a", "b")), sessions(2, sensors=("b", "a"))]
    events = [event._replace(values=event.values[::-1]) for event in events_of(rows)]  # columns are "b", "a"
    for twin in TWINS:
        assert twin.windows(plans, (), Limits()).sensors == ("b", "a")
        together = run(twin, plans, events, size)
        for plan in plans:
            picked = [
                event._replace(values=tuple(event.values[("b", "a").index(sensor)] for sensor in plan.sensors))
                for event in events
            ]
            mine = [comparable(row) for row in together if row.plan == plan]
            assert mine == [comparable(row) for row in run(twin, [plan], picked, size)], twin.name


@settings(deadline=None, max_examples=EXAMPLES)
@given(plan=PLANS, rows=ROWS, size=st.integers(1, 20), limits=TIGHT)
def test_both_implementations_write_the_same_rows(
    plan: Plan, rows: list[tuple[str, int, bool]], size: int, limits: Limits
) -> None:
    limits = msgspec.structs.replace(limits, size_bytes=Limits().size_bytes)  # their sizes differ
    full, lite = (run(twin, [plan], events_of(rows), size, limits) for twin in TWINS)
    assert [comparable(row) for row in lite] == [comparable(row) for row in full]


def test_the_number_of_open_windows_is_bounded(twin: Twin) -> None:
    limits = Limits()
    opened = twin.windows([tumbling(10**9)], (), limits)
    subjects = [f"asset-{number:03d}" for number in range(limits.windows + 44)]
    closed = opened.add(twin.readings(events_of([(subject, 0, True) for subject in subjects])))
    assert len(opened.marks) == limits.windows
    assert [row.mark.subject for row in closed] == subjects[:44]  # the oldest


def test_a_silent_subject_does_not_hold_its_window_for_ever(twin: Twin) -> None:
    limits = Limits(idle_rows=100)
    opened = twin.windows([tumbling(10)], (), limits)
    opened.add(twin.readings(events_of([("silent", 0, True)])))
    assert opened.add(twin.readings(events_of([("x", 0, True)], limits.idle_rows))) == []
    closed = opened.add(twin.readings(events_of([("x", 0, True)], limits.idle_rows + 1)))
    assert [row.mark.subject for row in closed] == ["silent"]


def test_what_a_start_reads_again_is_bounded(twin: Twin) -> None:
    limits = Limits(span_rows=100)
    opened = twin.windows([tumbling(10**9), sliding(10**9, 10**8)], (), limits)
    for chunk in chunked(events_of([("x", 0, True)] * 1_000), 7):
        opened.add(twin.readings(chunk))
        assert chunk[-1].seq - opened.resume_seq(chunk[-1].seq) <= limits.span_rows


def test_values_beyond_the_budget_are_written_early(twin: Twin) -> None:
    limits = Limits(size_bytes=40_000)
    plan = tumbling(10**9)
    events = events_of([(f"asset-{number % 20}", 0, True) for number in range(10_000)])
    opened = twin.windows([plan], (), limits)
    closed = []
    for chunk in chunked(events, 100):
        closed += opened.add(twin.readings(chunk))
        assert opened.size_bytes <= limits.size_bytes
    assert len(closed) > 0
    assert sum(row.mark.count for row in [*closed, *opened.close_all()]) == len(events)


def test_coarser_windows_join_neighbours_from_the_next_window_on(twin: Twin) -> None:
    opened = twin.windows([tumbling(10)], (), Limits())
    rows: list[ClosedWindow] = []
    for seq, time_ms in enumerate((1, 12, 18, 22, 41, 58, 61, 75)):
        if time_ms == 18:
            opened.coarsen(3)
        if time_ms == 75:
            opened.coarsen(1)
        rows += opened.add(twin.readings(events_of([("x", time_ms * 1_000, True)], seq)))
    rows += opened.close_all()
    # 12 and 18 are in the window that was open; 22 is in [0, 30), of which the earlier rows had their share.
    assert [(row.mark.start_us // 1_000, row.length_ms, row.mark.count) for row in rows] == [
        (0, 10, 1), (10, 10, 2), (0, 30, 1), (30, 30, 2), (60, 30, 2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least 1"):
        opened.coarsen(0)


def test_coarser_sessions_have_a_longer_gap(twin: Twin) -> None:
    opened = twin.windows([sessions(10)], (), Limits())
    opened.coarsen(5)
    rows = opened.add(twin.readings(events_of([("x", time_us, True) for time_us in (0, 40_000, 91_000)])))
    assert [row.mark.count for row in [*rows, *opened.close_all()]] == [2, 1]


@settings(deadline=None, max_examples=EXAMPLES)
@given(plan=PLANS, rows=ROWS, size=st.integers(1, 20), factors=st.lists(st.integers(1, 5), min_size=1, max_size=8))
@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_coarsening_loses_and_doubles_nothing(
    twin: Twin, plan: Plan, rows: list[tuple[str, int, bool]], size: int, factors: list[int]
) -> None:
    events = events_of(rows)
    opened = twin.windows([plan], (), Limits())
    closed: list[ClosedWindow] = []
    for number, chunk in enumerate(chunked(events, size)):
        opened.coarsen(factors[number % len(factors)])
        closed += opened.add(twin.readings(chunk))
    closed += opened.close_all()
    overlap = 1 if plan.kind is WindowKind.SESSION else plan.overlap
    assert sum(row.mark.count for row in closed) == len(events) * overlap
    if plan.kind is not WindowKind.SESSION:
        assert all(row.mark.start_us % (row.length_ms // plan.overlap * 1_000) == 0 for row in closed)


def test_no_window_is_coarsened_beyond_a_day(twin: Twin) -> None:
    opened = twin.windows([tumbling(60_000), sliding(3 * COARSE_MS_MAX, COARSE_MS_MAX)], (), Limits())
    opened.coarsen(10**9)
    opened.add(twin.readings(events_of([("x", 0, True)])))
    assert [row.length_ms for row in opened.close_all()] == [COARSE_MS_MAX, *[3 * COARSE_MS_MAX] * 3]


def test_rows_have_the_columns_that_they_need(twin: Twin) -> None:
    contract = CONTRACTS["telemetry_windows"]
    usual = rows_of(run(twin, [tumbling(10, measures=SHAPE)], events_of([("x", 0, True)]), 1), contract)
    assert list(usual) == [field.name for field in contract.fields if field.id <= 14]
    assert usual["sensor"] == ["a", "b"]
    every = [tumbling(10), sliding(10, 10, measures=(Measure.SUM,)), sessions(10)]
    rows = rows_of(run(twin, every, events_of([("x", 5_000, True)]), 1), contract)
    assert set(rows) <= {field.name for field in contract.fields}
    assert rows["kind"] == [None, None, "sliding", "sliding", "session", "session"]
    assert rows["p50"] == [0.0, -2.0, None, None, 0.0, -2.0]
    assert rows["sum"] == [0.0, -2.0] * 3
    assert rows["window_ms"] == [10, 10, 10, 10, 1, 1]


def test_a_measure_that_no_double_holds_is_null(twin: Twin) -> None:
    events = [Event(seq, "x", 0, True, (sign * 1e308, 1.0)) for seq, sign in enumerate((1, 1, -1))]
    columns = rows_of(run(twin, [tumbling(10)], events, 1), CONTRACTS["telemetry_windows"])
    assert columns["variance"] == [None, 0.0]
    assert (columns["min"], columns["max"]) == ([-1e308, 1.0], [1e308, 1.0])


@pytest.mark.stack
def test_the_lite_twin_loads_no_numpy() -> None:
    program = (
        "import sys; import edge_agent.lite.windows, edge_agent.core.window_rows; "
        "sys.exit(any(name.partition('.')[0] in ('numpy', 'datasketches') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
