"""Windows cover every valid event exactly once, and say of it what numpy says."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.core import windows as module
from edge_agent.core.windows import ClosedWindow, Readings, Windows, rows_of

WINDOW_US = 1_000
SENSORS = ("a", "b")
ROWS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-5_000, 5_000), st.booleans()), max_size=60)


def readings(rows: list[tuple[str, int, bool]], first_seq: int = 0) -> Readings:
    seqs = np.arange(first_seq, first_seq + len(rows), dtype=np.int64)
    values = np.stack([seqs * 7 % 13, seqs * 3 % 5], axis=1).astype(np.float64).reshape(len(rows), 2)
    return Readings(
        seqs,
        [row[0] for row in rows],
        np.array([row[1] for row in rows], dtype=np.int64),
        values,
        np.array([row[2] for row in rows], dtype=np.bool_),
    )


def chunks(rows: list[tuple[str, int, bool]], size: int) -> list[Readings]:
    return [readings(rows[first : first + size], first) for first in range(0, len(rows), size)]


def check_cover(rows: list[tuple[str, int, bool]], closed: list[ClosedWindow]) -> None:
    """Compare with a loop over single events: per subject and start, counts and values."""
    expected: dict[tuple[str, int], list[int]] = defaultdict(list)
    for seq, (subject, time_us, _) in enumerate(rows):
        expected[subject, time_us // WINDOW_US * WINDOW_US].append(seq)
    found: dict[tuple[str, int], list[ClosedWindow]] = defaultdict(list)
    for window in closed:
        found[window.mark.subject, window.mark.start_us].append(window)
    assert set(found) == set(expected)
    everything = readings(rows)
    for key, seqs in expected.items():
        parts = found[key]
        assert sum(part.mark.count for part in parts) == len(seqs)
        assert sum(part.mark.kept for part in parts) == sum(rows[seq][2] for seq in seqs)
        assert (min(p.mark.first_seq for p in parts), max(p.mark.last_seq for p in parts)) == (seqs[0], seqs[-1])
        together = np.sort(np.concatenate([part.values for part in parts]), axis=0)
        assert np.array_equal(together, np.sort(everything.values[seqs], axis=0))


@settings(deadline=None)
@given(ROWS, st.integers(1, 20))
def test_every_event_is_in_one_window_whatever_the_chunks_and_the_order(
    rows: list[tuple[str, int, bool]], size: int
) -> None:
    windows = Windows(WINDOW_US)
    closed = [window for chunk in chunks(rows, size) for window in windows.add(chunk)]
    assert len({mark.subject for mark in windows.marks}) == len(windows.marks)
    check_cover(rows, [*closed, *windows.close_all()])


@settings(deadline=None)
@given(ROWS, st.integers(1, 20), st.integers(0, 60))
def test_windows_refilled_from_their_marks_close_as_if_nothing_had_happened(
    rows: list[tuple[str, int, bool]], size: int, stop: int
) -> None:
    windows = Windows(WINDOW_US)
    closed: list[ClosedWindow] = []
    for number, chunk in enumerate(chunks(rows, size)):
        if number == stop // size:
            durable = int(chunk.seqs[0])
            restarted = Windows(WINDOW_US, windows.marks)
            resume = restarted.resume_seq(durable)
            for again in chunks(rows[resume:durable], 7):
                restarted.refill(
                    Readings(again.seqs + resume, again.subjects, again.times_us, values_at(again, resume), again.kept)
                )
            assert restarted.is_whole()
            windows = restarted
        closed += windows.add(chunk)
    check_cover(rows, [*closed, *windows.close_all()])


def values_at(part: Readings, offset: int) -> np.ndarray:
    seqs = part.seqs + offset
    return np.stack([seqs * 7 % 13, seqs * 3 % 5], axis=1).astype(np.float64)


def test_a_source_that_changed_is_noticed() -> None:
    windows = Windows(WINDOW_US)
    windows.add(readings([("x", 1, True), ("x", 2, True)]))
    restarted = Windows(WINDOW_US, windows.marks)
    restarted.refill(readings([("x", 1, True), ("y", 2, True)]))
    assert not restarted.is_whole()


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=50))
def test_statistics_are_numpys(values: list[tuple[float, float]]) -> None:
    array = np.array(values)
    windows = Windows(WINDOW_US)
    count = len(values)
    seqs = np.arange(count, dtype=np.int64)
    windows.add(Readings(seqs, ["x"] * count, np.zeros(count, dtype=np.int64), array, np.ones(count, dtype=np.bool_)))
    rows = rows_of(windows.close_all(), SENSORS, 1, "asset_id", "window_start")
    assert rows["sensor"] == list(SENSORS)
    assert rows["count"] == [count, count]
    for name, expected in (
        ("min", array.min(axis=0)),
        ("max", array.max(axis=0)),
        ("mean", array.mean(axis=0)),
        ("p50", np.quantile(array, 0.5, axis=0)),
        ("p90", np.quantile(array, 0.9, axis=0)),
        ("p99", np.quantile(array, 0.99, axis=0)),
    ):
        assert np.allclose(np.asarray(rows[name], dtype=np.float64), expected, rtol=1e-9, atol=1e-6), name


def test_what_is_open_is_bounded() -> None:
    windows = Windows(10**12)
    subjects = [f"asset-{number}" for number in range(module.OPEN_WINDOWS_MAX + 44)]
    closed = windows.add(readings([(subject, 0, True) for subject in subjects]))
    assert (len(windows.marks), len(closed)) == (module.OPEN_WINDOWS_MAX, 44)
    assert {window.mark.subject for window in closed} == set(subjects[:44])  # the oldest
    seqs = np.arange(1_000, 1_001 + module.OPEN_ROWS_MAX, dtype=np.int64)
    count = len(seqs)
    many = Readings(seqs, ["one"] * count, np.zeros(count, dtype=np.int64), np.zeros((count, 2)), seqs > 0)
    windows.add(many)
    assert sum(mark.count for mark in windows.marks) <= module.OPEN_ROWS_MAX


def test_a_silent_subject_does_not_hold_its_window_for_ever() -> None:
    windows = Windows(WINDOW_US)
    windows.add(readings([("silent", 0, True)]))
    late = readings([("x", 0, True)], first_seq=module.IDLE_ROWS_MAX + 1)
    assert [window.mark.subject for window in windows.add(late)] == ["silent"]
