"""What a device says of itself: exact counts, honest lags, a row of its contract, and nothing without a contract."""

import math
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.durations import PARTS, Durations
from edge_agent.core.intake import Intake
from edge_agent.core.lag import MARKS_MAX, Lag
from edge_agent.core.metrics import AGENT_METRICS, METRICS_INTERVAL_S, Levels, Meter, Metrics, Totals, columns_of
from edge_agent.core.spool.pressure import Step
from edge_agent.core.spool.spool import Group
from tests.edge_agent.plant import contract, lines_of, reading, rows_of
from tests.edge_agent.simulated import plan_of

CONTRACT = contract(AGENT_METRICS)
FIELDS = [field.name for field in CONTRACT.fields]
ROW_BYTES_MAX = 200  # bytes of a whole micro-batch: 0.3 MB a day


def metrics(**changes: Any) -> Metrics:
    meter = Meter(METRICS_INTERVAL_S, Totals(), 0.0)
    row = meter.row(
        Totals(59_812, 312, 1, 0, 7.12), Levels(63_400_000, 412_312, 912_333_123), 60.003, 1_763_821_620_000
    )
    return msgspec.structs.replace(row, **changes)


def test_a_row_has_the_fields_of_its_contract_and_no_others() -> None:
    assert list(Metrics.__struct_fields__) == FIELDS
    levels, step = Levels(), CONTRACT.field("ladder_step")
    assert {levels.ladder_step, *(one.name.lower() for one in Step)} == set(step.checks.valid_values or ())


def test_a_row_of_real_size_is_small_on_the_wire_and_arrives_as_it_was() -> None:
    plan = msgspec.structs.replace(plan_of(100), metrics=CONTRACT)
    wanted = metrics(bundle_version="2026.11.3-试行", agent_version="0.1.0", flush_p50_us=1_873, clock_offset_ms=-12)
    group = Intake(plan, None).take({}, 1_763_821_620_000, metrics=wanted)
    assert group is not None
    (batch,) = group.batches
    assert len(batch.data) <= ROW_BYTES_MAX
    (row,) = rows_of(CONTRACT, batch.data)
    found = {name: row[name] for name in FIELDS if name != "measured_at"}
    assert found == {name: getattr(wanted, name) for name in found}
    assert row["measured_at"] == 1_763_821_620_000_000


def test_rows_are_numbered_on_over_restarts_and_counted_as_kept() -> None:
    plan = msgspec.structs.replace(plan_of(100), metrics=CONTRACT)
    newest = None
    for number in range(3):
        group = Intake(plan, newest).take({}, number * 60_000, metrics=metrics())
        assert group is not None
        newest = group.meta
        assert [(b.contract, b.first_seq, b.span, b.rows) for b in group.batches] == [(AGENT_METRICS, number, 1, 1)]
        assert [(c.stream, c.fate, c.count) for c in newest.counts] == [(AGENT_METRICS, "kept", 1)]
        assert newest.next_seq[AGENT_METRICS] == number + 1


def test_a_row_goes_with_the_events_of_its_flush_in_one_record() -> None:
    plan = msgspec.structs.replace(plan_of(100), metrics=CONTRACT)
    events = lines_of([reading(seq) for seq in range(50)])
    group = Intake(plan, None).take({"telemetry": events}, 0, metrics=metrics())
    assert group is not None
    assert [batch.contract for batch in group.batches][-1] == AGENT_METRICS
    assert "telemetry" in {batch.contract for batch in group.batches}


def test_a_bundle_without_the_contract_keeps_the_figures_on_the_device() -> None:
    group: Group | None = Intake(plan_of(100), None).take({}, 0, metrics=metrics())
    assert group is None


def test_texts_are_cut_to_what_the_contract_allows() -> None:
    columns = columns_of(CONTRACT, metrics(bundle_version="版" * 500))
    assert columns["bundle_version"] == ["版" * 128]


def test_counts_are_of_the_time_since_the_last_row() -> None:
    meter = Meter(60.0, Totals(5, 5, 5, 5, 5.0), 100.0)
    assert not meter.is_due(159.9)
    assert meter.is_due(160.0)
    for duration_s in (0.001, 0.002, 0.5):
        meter.flushed(duration_s)
    meter.committed(1_000, 1_100)
    meter.committed(1_000, 950)
    first = meter.row(Totals(15, 7, 6, 5, 5.5), Levels(), 160.0, 1)
    assert (first.observed, first.batches, first.resends, first.reconnects, first.cpu_ms) == (10, 2, 1, 0, 500)
    assert (first.flushes, first.clock_offset_ms, first.interval_ms) == (3, -100, 60_000)
    second = meter.row(Totals(15, 7, 6, 6, 5.5), Levels(), 220.0, 2)
    assert (second.observed, second.reconnects, second.flushes, second.clock_offset_ms) == (0, 1, 0, None)
    assert (second.flush_p50_us, second.flush_p99_us) == (None, None)
    assert not Meter(0.0, Totals(), 0.0).is_due(1e9)


@given(st.lists(st.floats(1e-6, 1_000.0), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_sorted_list_within_a_bucket(durations_s: list[float], share: float) -> None:
    durations = Durations()
    for duration_s in durations_s:
        durations.add(duration_s)
    exact_us = sorted(durations_s)[math.ceil(share * len(durations_s)) - 1] * 1e6
    found = durations.quantile_us(share)
    assert found is not None
    assert exact_us / 2 ** (1 / PARTS) - 1 <= found <= exact_us + 1


def test_a_histogram_is_of_one_size_whatever_it_counts() -> None:
    durations = Durations()
    for place in range(10_000):
        durations.add(1e-6 * 1.003**place)
    assert len(durations._counts) <= 31 * PARTS + 1
    durations.clear()
    assert durations.quantile_us(0.5) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.1, 3.0)), min_size=1, max_size=400), st.floats(0, 1))
def test_a_lag_is_the_age_of_the_oldest_that_is_not_committed(steps: list[tuple[int, float]], share: float) -> None:
    lag, now_s, events = Lag(), 0.0, 0
    came: list[float] = []  # when each event was first counted
    for more, wait_s in steps:
        now_s += wait_s
        events += more
        came += [now_s] * more
        lag.mark(events, now_s)
    committed = int(share * events)
    exact_s = now_s - came[committed] if committed < events else 0.0
    found_s = lag.age_s(committed, now_s)
    longest_s = max(wait for _, wait in steps)
    # Every second mark goes when there are too many, so some events count as younger than they are.
    apart = 1 if len(steps) <= MARKS_MAX else 2 * math.ceil(len(steps) / MARKS_MAX) * 2
    assert exact_s - apart * longest_s - 1e-6 <= found_s <= exact_s + 1e-6
    assert (found_s == 0.0) == (committed == events) or exact_s - found_s <= apart * longest_s + 1e-6


def test_a_week_offline_takes_no_more_marks_and_keeps_the_oldest() -> None:
    lag = Lag()
    for second in range(604_800):
        lag.mark(second + 1, float(second))
    assert len(lag._marks) <= MARKS_MAX
    assert lag.age_s(0, 604_800.0) == 604_800.0
    assert lag.age_s(604_800, 604_800.0) == 0.0
