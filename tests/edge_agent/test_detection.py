"""What every detector promises: no look ahead, no dependence on chunks, memory that stays, a state that can be kept."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.bundle import Model
from edge_agent.adapters.detector import DetectorScorer
from edge_agent.core.events import Column, Events
from edge_agent.core.filter import detection
from edge_agent.core.filter.detection import CRC_BYTES, SAVED_BYTES_MAX, AnyDetector, load, save
from edge_agent.core.filter.extremes import Memory
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.level import LevelSettings, LevelShift
from edge_agent.core.filter.novelty import Novelty, NoveltySettings
from edge_agent.errors import DetectorStateError

Rows = NDArray[np.float64]

SENSORS: Final = 3
SHORT: Final = Memory(block_rows=4, blocks=3)
NOVELTY: Final = NoveltySettings(warm_rows=5, level=Memory(4, 6), step=SHORT, quiet=Memory(2, 2))
LEVEL: Final = LevelSettings(learn_rows=20, window_rows=4, peak=SHORT)

# Every detector, and with how many sensors: (start, sensors).
DETECTORS: Final[dict[str, tuple[Callable[[], AnyDetector], int]]] = {
    "novelty": (lambda: Novelty.start(NOVELTY), 1),
    "level of one": (lambda: LevelShift.start(1, LEVEL), 1),
    "level of three": (lambda: LevelShift.start(SENSORS, LEVEL), SENSORS),
    "level without a mean": (lambda: LevelShift.start(SENSORS, LevelSettings(10, 1, 0.1, SHORT)), SENSORS),
}
EVERY = pytest.mark.parametrize(("start", "sensors"), DETECTORS.values(), ids=DETECTORS)

QUICK = settings(max_examples=25, deadline=None)

# Mostly readings as sensors give them, now and then none, or one that nobody should compute with.
READING: Final = st.one_of(
    st.integers(-20, 20).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, 5e-324, 0.0]),
)
SERIES: Final = st.lists(st.tuples(*[READING] * SENSORS), max_size=70)
CHUNKS: Final = st.lists(st.integers(0, 25), max_size=20)


def rows_of(series: list[tuple[float, ...]], sensors: int) -> Rows:
    return np.array(series, dtype=np.float64).reshape(-1, SENSORS)[:, :sensors]


def run(detector: AnyDetector, rows: Rows, sizes: list[int]) -> tuple[AnyDetector, Rows]:
    """Advance by chunks of these sizes, and by the rest in one."""
    parts, place = [], 0
    for size in [*sizes, len(rows)]:
        detector, scores = detector.advance(rows[place : place + size])
        parts.append(scores)
        place += size
    return detector, np.concatenate(parts)


@EVERY
@QUICK
@given(series=SERIES, kept=st.integers(0, 70))
def test_cutting_a_series_short_changes_no_earlier_score(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]], kept: int
) -> None:
    rows = rows_of(series, sensors)
    _, whole = start().advance(rows)
    _, short = start().advance(rows[:kept])
    assert short.tobytes() == whole[:kept].tobytes()


@EVERY
@QUICK
@given(series=SERIES, sizes=CHUNKS)
def test_scores_do_not_depend_on_the_chunks(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]], sizes: list[int]
) -> None:
    rows = rows_of(series, sensors)
    _, whole = start().advance(rows)
    _, cut = run(start(), rows, sizes)
    assert cut.tobytes() == whole.tobytes()


@EVERY
@QUICK
@given(series=SERIES, sizes=CHUNKS, place=st.integers(0, 70))
def test_a_detector_that_was_saved_goes_on_as_if_nothing_had_happened(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]], sizes: list[int], place: int
) -> None:
    rows = rows_of(series, sensors)
    _, whole = start().advance(rows)
    before, first = run(start(), rows[:place], sizes)
    saved = save(before)
    _, second = run(load(saved), rows[place:], sizes)
    assert np.concatenate((first, second)).tobytes() == whole.tobytes()
    assert save(load(saved)) == saved


@EVERY
@QUICK
@given(series=SERIES)
def test_advancing_leaves_the_detector_as_it_was(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]]
) -> None:
    rows = rows_of(series, sensors)
    detector, _ = start().advance(rows)
    kept = save(detector)
    _, once = detector.advance(rows)
    _, twice = detector.advance(rows)
    assert save(detector) == kept
    assert once.tobytes() == twice.tobytes()


@EVERY
@QUICK
@given(series=SERIES, at=st.integers(0, 70), silent_rows=st.integers(1, 9))
def test_rows_without_any_number_are_passed_over(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]], at: int, silent_rows: int
) -> None:
    rows = rows_of(series, sensors)
    at = min(at, len(rows))
    silence = np.full((silent_rows, sensors), np.nan)
    _, without = start().advance(rows)
    _, scores = start().advance(np.concatenate((rows[:at], silence, rows[at:])))
    assert np.isnan(scores[at : at + silent_rows]).all()
    assert np.delete(scores, slice(at, at + silent_rows)).tobytes() == without.tobytes()


@EVERY
@QUICK
@given(series=SERIES)
def test_a_score_is_a_number_from_zero_up_or_no_opinion(
    start: Callable[[], AnyDetector], sensors: int, series: list[tuple[float, ...]]
) -> None:
    _, scores = start().advance(rows_of(series, sensors))
    assert scores.shape == (len(series),)
    assert (np.isnan(scores) | (np.isfinite(scores) & (scores >= 0.0))).all()


@EVERY
def test_a_constant_series_is_never_new_and_its_first_change_is(start: Callable[[], AnyDetector], sensors: int) -> None:
    detector, scores = start().advance(np.full((100, sensors), 21.5))
    assert np.nanmax(scores) == 0.0
    _, changed = detector.advance(np.full((1, sensors), 21.75))
    assert changed[0] > 20.0


@EVERY
@pytest.mark.parametrize("factor", [4.0, 0.5, 1000.0, -1.0])
@pytest.mark.parametrize("seed", range(5))
def test_other_units_and_another_zero_change_nothing(
    start: Callable[[], AnyDetector], sensors: int, factor: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).integers(-500, 500, size=(80, sensors)).astype(np.float64)
    _, plain = start().advance(rows)
    _, moved = start().advance(rows * factor + 64.0)
    assert np.nanmax(plain) > 0.0
    np.testing.assert_allclose(moved, plain, rtol=1e-9)


@EVERY
def test_memory_does_not_grow_with_the_series(start: Callable[[], AnyDetector], sensors: int) -> None:
    rows = np.random.default_rng(7).normal(size=(2_000, sensors))
    early, _ = start().advance(rows[:100])
    late, _ = start().advance(rows)
    later, _ = late.advance(rows)
    assert len(save(later)) <= len(save(early)) + 64  # bytes; numbers of rows grow by a few digits
    assert len(save(later)) < 2_000


def test_a_detector_with_the_settings_of_a_device_is_small() -> None:
    rows = np.random.default_rng(7).normal(size=(10_000, 8))
    novelty, _ = Novelty.start().advance(rows[:, :1])
    learning, _ = LevelShift.start(8).advance(rows[:399])
    learned, _ = LevelShift.start(8).advance(rows)
    assert len(save(novelty)) < 4_000
    assert len(save(learning)) < 27_000
    assert len(save(learned)) < 3_000


@pytest.mark.parametrize("detector", [Novelty.start(NOVELTY), LevelShift.start(SENSORS, LEVEL)], ids=["n", "l"])
@QUICK
@given(st.data())
def test_damaged_bytes_are_refused(detector: AnyDetector, data: st.DataObject) -> None:
    saved = bytearray(save(detector))
    place = data.draw(st.integers(0, len(saved) - 1))
    saved[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(saved)))
    for damaged in (bytes(saved), bytes(saved[:cut])):
        with pytest.raises(DetectorStateError, match="learns anew"):
            load(damaged)


def with_checksum(body: bytes) -> bytes:
    return detection.zlib.crc32(body).to_bytes(CRC_BYTES, "little") + body


@QUICK
@given(st.binary(max_size=200))
def test_bytes_that_nobody_saved_are_refused(body: bytes) -> None:
    with pytest.raises(DetectorStateError):
        load(with_checksum(body))


def test_parts_that_do_not_fit_are_refused() -> None:
    ours, other = Novelty.start(NOVELTY), Novelty.start(NoveltySettings(level=Memory(4, 7)))
    mixed = detection.msgspec.structs.replace(ours, level=other.level)
    with pytest.raises(DetectorStateError, match="do not fit"):
        load(save(mixed))
    learning, _ = LevelShift.start(SENSORS, LEVEL).advance(np.ones((3, SENSORS)))
    with pytest.raises(DetectorStateError, match="do not fit"):
        load(save(detection.msgspec.structs.replace(learning, rows=4)))
    with pytest.raises(DetectorStateError, match=f"to {SAVED_BYTES_MAX} bytes"):
        load(bytes(SAVED_BYTES_MAX + 1))


def events_of(rows: Rows) -> Events:
    columns: dict[str, Column] = {f"f{place}": column for place, column in enumerate(rows.T)}
    return Events(np.arange(len(rows), dtype=np.int64), columns, [b""] * len(rows), [None] * len(rows))


def test_a_detector_serves_as_the_model_of_a_filter() -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(120, SENSORS))
    rows[90:100] += 40.0
    scorer = DetectorScorer(LevelShift.start(SENSORS, LEVEL))
    model = Model("level", "1", "level", "", tuple(f"f{n}" for n in range(SENSORS)), threshold=20.0, chunk_rows=1)
    verdict = Filter(model, scorer).decide(events_of(rows))
    assert verdict.keep[:20].all()  # no opinion yet
    assert not verdict.keep[20:90].any()
    assert verdict.keep[93:100].all()
    resumed = DetectorScorer.resumed(scorer.saved())
    more = rng.normal(size=(30, SENSORS)).astype(np.float32)
    assert resumed.scores(more).tobytes() == scorer.scores(more).tobytes()
