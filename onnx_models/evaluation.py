"""What a threshold does to labelled rows, with the interval that says how well so many rows can know it."""

from math import sqrt
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onnx_models.dataset import Labels

# Two-sided 95 % of the normal distribution.
WILSON_Z: Final = 1.959963984540054


class Proportion(Struct, frozen=True):
    """`count` of `total`, and the 95 % Wilson interval of the share behind it."""

    count: int
    total: int
    value: float
    low: float
    high: float


class Evaluation(Struct, frozen=True):
    """Counts over one part of a record: recall of anomalies, and share of all rows that do not travel as rows."""

    recall: Proportion
    drop_ratio: Proportion
    anomalies_missed: int
    calm_rows_kept: int


def proportion(count: int, total: int) -> Proportion:
    """Return `count` / `total` with its Wilson interval; raises ValueError unless 0 <= count <= total and total > 0."""
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"proportion {count}/{total}: expected 0 <= count <= total and total > 0")
    value = count / total
    denominator = 1 + WILSON_Z**2 / total
    centre = (value + WILSON_Z**2 / (2 * total)) / denominator
    half_width = WILSON_Z * sqrt(value * (1 - value) / total + WILSON_Z**2 / (4 * total**2)) / denominator
    # At 0 and at 1 rounding would push the bound a hair past the share itself.
    low, high = min(value, max(0.0, centre - half_width)), max(value, min(1.0, centre + half_width))
    return Proportion(count=count, total=total, value=value, low=low, high=high)


def evaluate(scores: NDArray[np.float32], labels: Labels, threshold: float) -> Evaluation:
    """Count what `score >= threshold` keeps of scores [n] with labels [n]; both kinds of row must occur."""
    kept = scores >= threshold
    hits = int(np.count_nonzero(kept & labels))
    anomalies = int(np.count_nonzero(labels))
    kept_count = int(np.count_nonzero(kept))
    return Evaluation(
        recall=proportion(hits, anomalies),
        drop_ratio=proportion(scores.size - kept_count, scores.size),
        anomalies_missed=anomalies - hits,
        calm_rows_kept=kept_count - hits,
    )
