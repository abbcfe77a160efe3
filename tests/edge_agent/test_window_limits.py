"""What is open is bounded, windows can be made coarser, and a row has the columns that it needs."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import SHAPE, Measure, WindowKind
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.open_windows import COARSE_MS_MAX, Limits
from edge_agent.core.windows.window_rows import rows_of
from tests.edge_agent.plant import CONTRACTS, ROOT
from tests.edge_agent.twins import TWINS, Event, Twin, chunked, events_of, run, sessions, sliding, story, tumbling

both = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)


@both
def test_the_number_of_open_windows_is_bounded(twin: Twin) -> None:
    limits = Limits()
    opened = twin.windows([tumbling(10**9)], (), limits)
    subjects = [f"asset-{number:03d}" for number in reversed(range(limits.windows + 44))]
    closed = opened.add(twin.readings(events_of([(subject, 0, True) for subject in subjects])))
    assert len(opened.marks) == limits.windows
    assert [row.mark.subject for row in closed] == subjects[:44]  # the oldest


@both
def test_a_silent_subject_does_not_hold_its_window_for_ever(twin: Twin) -> None:
    limits = Limits(idle_rows=100)
    opened = twin.windows([tumbling(10)], (), limits)
    opened.add(twin.readings(events_of([("silent", 0, True)])))
    assert opened.add(twin.readings(events_of([("x", 0, True)], limits.idle_rows))) == []
    closed = opened.add(twin.readings(events_of([("x", 0, True)], limits.idle_rows + 1)))
    assert [row.mark.subject for row in closed] == ["silent"]


@both
def test_what_a_start_reads_again_is_bounded(twin: Twin) -> None:
    limits = Limits(span_rows=100)
    opened = twin.windows([tumbling(10**9), sliding(10**9, 10**8)], (), limits)
    for chunk in chunked(events_of([("x", 0, True)] * 1_000), 7):
        opened.add(twin.readings(chunk))
        assert chunk[-1].seq - opened.resume_seq(chunk[-1].seq) <= limits.span_rows


@both
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


@both
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


@both
def test_coarser_sessions_have_a_longer_gap_from_the_next_on(twin: Twin) -> None:
    opened = twin.windows([sessions(10)], (), Limits())
    rows = opened.add(twin.readings(events_of([("x", 0, True)])))
    opened.coarsen(5)
    for seq, time_us in enumerate((10_000, 50_000, 100_000, 151_000), 1):
        rows += opened.add(twin.readings(events_of([("x", time_us, True)], seq)))
    assert [row.mark.count for row in [*rows, *opened.close_all()]] == [2, 2, 1]


@both
def test_the_first_coarser_pane_begins_where_the_finer_ones_end(twin: Twin) -> None:
    opened = twin.windows([tumbling(10)], (), Limits())
    opened.add(twin.readings(events_of([("x", 1_000, True)])))
    opened.coarsen(3)
    # In one chunk: an event of the open window, and before it in number one that opens [0, 30).
    opened.add(twin.readings(events_of([("x", 22_000, True), ("x", 5_000, True)], 1)))
    (mark,) = opened.marks
    assert (mark.start_us, mark.factor, mark.first_seq, mark.count) == (10_000, 3, 1, 1)
    late = opened.add(twin.readings(events_of([("x", 9_000, True), ("x", 11_000, True)], 3)))
    assert [(row.mark.start_us, row.length_ms, row.mark.count) for row in late] == [(0, 30, 1)]
    restarted = twin.windows([tumbling(10)], opened.marks, Limits())
    again = events_of([("x", time_us, True) for time_us in (1_000, 22_000, 5_000, 9_000, 11_000)])
    restarted.refill(twin.readings(again[1:]))
    assert restarted.is_whole()
    assert [row.mark.count for row in restarted.close_all()] == [2]


@both
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_coarsening_loses_and_doubles_nothing(twin: Twin, seed: int) -> None:
    source = story(seed)
    plan = source.rng.choice([tumbling(3), sliding(6, 2), sliding(4, 1), sessions(2)])
    opened = twin.windows([plan], (), Limits())
    closed: list[ClosedWindow] = []
    for chunk in source.chunks:
        opened.coarsen(source.rng.choice([1, 1, 2, 5]))
        closed += opened.add(twin.readings(chunk))
    closed += opened.close_all()
    is_session = plan.kind is WindowKind.SESSION
    assert sum(row.mark.count for row in closed) == len(source.events) * (1 if is_session else plan.overlap)
    assert is_session or all(row.mark.start_us % (row.length_ms // plan.overlap * 1_000) == 0 for row in closed)


@both
def test_no_window_is_coarsened_beyond_a_day(twin: Twin) -> None:
    opened = twin.windows([tumbling(60_000), sliding(3 * COARSE_MS_MAX, COARSE_MS_MAX)], (), Limits())
    opened.coarsen(10**9)
    opened.add(twin.readings(events_of([("x", 0, True)])))
    assert [row.length_ms for row in opened.close_all()] == [COARSE_MS_MAX, *[3 * COARSE_MS_MAX] * 3]


@both
def test_rows_have_the_columns_that_they_need(twin: Twin) -> None:
    contract = CONTRACTS["telemetry_windows"]
    usual = rows_of(run(twin, [tumbling(10, measures=SHAPE)], [events_of([("x", 0, True)])], Limits()), contract)
    assert list(usual) == [field.name for field in contract.fields if field.id <= 14]
    assert usual["sensor"] == ["a", "b"]
    every = [tumbling(10), sliding(10, 10, measures=(Measure.SUM,)), sessions(10)]
    rows = rows_of(run(twin, every, [events_of([("x", 5_000, True)])], Limits()), contract)
    assert set(rows) <= {field.name for field in contract.fields}
    assert rows["kind"] == [None, None, "sliding", "sliding", "session", "session"]
    assert rows["p50"] == [0.0, -2.0, None, None, 0.0, -2.0]
    assert rows["sum"] == [0.0, -2.0] * 3
    assert rows["window_ms"] == [10, 10, 10, 10, 1, 1]


@both
def test_a_measure_that_no_double_holds_is_null(twin: Twin) -> None:
    events = [Event(seq, "x", 0, True, (sign * 1e308, 1.0)) for seq, sign in enumerate((1, 1, -1))]
    columns = rows_of(run(twin, [tumbling(10)], chunked(events, 1), Limits()), CONTRACTS["telemetry_windows"])
    assert columns["variance"] == [None, 0.0]
    assert (columns["min"], columns["max"]) == ([-1e308, 1.0], [1e308, 1.0])


@pytest.mark.stack
def test_the_lite_twin_loads_no_numpy() -> None:
    program = (
        "import sys; import edge_agent.lite.windows, edge_agent.core.windows.window_rows; "
        "sys.exit(any(name.partition('.')[0] in ('numpy', 'datasketches') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
