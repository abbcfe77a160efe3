"""Properties of the figures on a model card."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_models.evaluation import evaluate, proportion


@given(st.integers(1, 100_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_interval_holds_the_share_and_stays_within_zero_and_one(case: tuple[int, int]) -> None:
    share = proportion(*case)
    assert 0.0 <= share.low <= share.value <= share.high <= 1.0


def test_interval_equals_the_published_example() -> None:
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662 by Wilson's method without continuity correction.
    share = proportion(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= count"):
        proportion(count, total)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2), st.floats(0, 1))
def test_every_row_is_counted_once(cases: list[tuple[float, bool]], threshold: float) -> None:
    scores = np.array([0.0, 1.0, *(score for score, _ in cases)], dtype=np.float32)
    labels = np.array([True, False, *(label for _, label in cases)])
    found = evaluate(scores, labels, threshold)
    kept = found.recall.count + found.calm_rows_kept
    assert found.recall.count + found.anomalies_missed == found.recall.total
    assert kept + found.drop_ratio.count == len(scores)
