"""The estimate of recall: against another library, and by drawing samples from worlds in which the truth is known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from contracts.recall import recall_of, share_of
from contracts.sampling import DROPPED_SAMPLE, draw, draws_below, seed_of

COUNTS = st.integers(1, 2_000_000).flatmap(
    lambda total: st.tuples(st.integers(0, total) | st.integers(0, min(total, 5)), st.just(total))
)


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_of_a_share_is_the_other_librarys(case: tuple[int, int], confidence: float) -> None:
    count, total = case
    found = share_of(count, total, confidence)
    tail = (1 - confidence) / 2
    low = beta.ppf(tail, count, total - count + 1) if count else 0.0
    high = beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0
    assert found.low == pytest.approx(low, rel=1e-6, abs=1e-12)
    assert found.high == pytest.approx(high, rel=1e-6, abs=1e-12)
    assert found.value is not None
    assert found.low <= found.value <= found.high


def test_no_hit_in_a_sample_has_the_known_bound() -> None:
    # With no hit among n the upper end is 1 - (alpha / 2) ** (1 / n).
    assert share_of(0, 70).high == pytest.approx(1 - 0.025 ** (1 / 70))


@given(
    st.integers(0, 10_000),
    st.integers(0, 100_000).flatmap(
        lambda over: st.integers(0, over).flatmap(
            lambda taken: st.tuples(st.just(over), st.just(taken), st.integers(0, taken))
        )
    ),
)
def test_recall_lies_in_its_interval_and_a_miss_more_lowers_it(kept: int, counts: tuple[int, int, int]) -> None:
    over, taken, hits = counts
    found = recall_of(kept, over, taken, hits)
    assert 0 <= found.recall.low <= found.recall.high <= 1
    assert hits <= found.missed.low <= found.missed.high <= over - taken + hits
    if found.recall.value is not None:
        assert found.recall.low - 1e-12 <= found.recall.value <= found.recall.high + 1e-12
    if hits < taken:
        worse = recall_of(kept, over, taken, hits + 1)
        assert worse.recall.low <= found.recall.low
        assert worse.recall.high <= found.recall.high


def test_without_a_sample_nothing_is_known_and_with_all_of_it_everything() -> None:
    nothing = recall_of(100, 1_000, 0, 0)
    assert (nothing.recall.value, nothing.recall.low, nothing.recall.high) == (None, pytest.approx(100 / 1_100), 1.0)
    everything = recall_of(90, 1_000, 1_000, 10)
    assert everything.recall.value == everything.recall.low == everything.recall.high == pytest.approx(0.9)
    assert recall_of(0, 0, 0, 0).recall.value is None


@pytest.mark.parametrize("counts", [(-1, 5, 5, 0), (1, 5, 6, 0), (1, 5, 3, 4), (1, 5, 3, -1)])
def test_counts_that_contradict_each_other_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="recall: expected"):
        recall_of(*counts)


@pytest.mark.parametrize(("share", "ratio"), [(0.001, 0.1), (0.01, 0.1), (0.1, 0.05)])
def test_the_interval_covers_the_true_recall_as_often_as_it_says(share: float, ratio: float) -> None:
    """200 worlds, each sampled as devices sample; 95 % of them make 190, and an exact interval covers more."""
    rng = random.Random(20_260)
    events, kept, below = 2_000, 100, draws_below(ratio)
    covered, errors = 0, []
    for world in range(200):
        relevant = {seq for seq in range(events) if rng.random() < share}
        seed = seed_of("device", world, "telemetry", DROPPED_SAMPLE)
        taken = [seq for seq in range(events) if draw(seed, seq) < below]
        found = recall_of(kept, events, len(taken), sum(seq in relevant for seq in taken))
        truth = kept / (kept + len(relevant))
        covered += found.recall.low <= truth <= found.recall.high
        assert found.missed.value is not None
        errors.append(found.missed.value - len(relevant))
    assert covered >= 190
    spread = (sum(error**2 for error in errors) / len(errors)) ** 0.5
    assert abs(sum(errors) / len(errors)) < 4 * spread / len(errors) ** 0.5  # the estimate has no bias
