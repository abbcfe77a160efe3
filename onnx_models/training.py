"""Fits the filter and chooses its threshold. Pure: the same rows and the same seed give the same forest.

A forest of regression trees over the 0/1 label is used because its ONNX form is one node with one output: the mean
vote, which is the share of trees (weighted by leaf purity) that call the row an anomaly.
"""

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier

from onnx_models.dataset import Labels, Rows
from onnx_models.errors import ModelTooWeakError

RECALL_MIN: Final = 0.99
DROP_RATIO_MIN: Final = 0.90
SMALL_TREE_DEPTH: Final = 3


class ForestOptions(Struct, frozen=True):
    """Size of the forest.

    `tree_count` is a power of two: each vote is then scaled exactly, and the float32 sum of votes cannot pass 1.
    Sixteen trees of depth 12 are about 20 KB; more of them moved no count of the validation rows.
    """

    tree_count: int = 16
    depth_max: int = 12
    features_per_split: int = 3
    # Rows kept without need, per thousand observed. A missed anomaly costs more than a row, so all of it is spent.
    false_keeps_per_mille: int = 5


def fit_forest(rows: Rows, labels: Labels, options: ForestOptions, seed: int) -> RandomForestRegressor:
    """Fit on rows [n, 9] and labels [n]; the forest predicts a score in [0, 1]."""
    forest = RandomForestRegressor(
        n_estimators=options.tree_count,
        max_depth=options.depth_max,
        max_features=options.features_per_split,
        random_state=seed,
        n_jobs=1,
    )
    return forest.fit(rows, labels.astype(np.float64))


def score_with_small_tree(fit_rows: Rows, fit_labels: Labels, rows: Rows) -> NDArray[np.float32]:
    """Return the scores [n] that one shallow tree gives to rows [n, 9]: the yardstick for what the forest adds."""
    tree = DecisionTreeClassifier(max_depth=SMALL_TREE_DEPTH, random_state=0).fit(fit_rows, fit_labels)
    return np.asarray(tree.predict_proba(rows)[:, 1], dtype=np.float32)


def choose_threshold(scores: NDArray[np.float32], labels: Labels, options: ForestOptions) -> float:
    """Return the lowest threshold whose needless keeps fit the allowance; a row is kept if score >= threshold.

    `scores` and `labels` [n] come from validation rows. The threshold lies half-way to the next lower score seen, so
    that no rounding between two evaluators decides about a row. Raises ModelTooWeakError if recall or drop ratio
    misses its target even here.
    """
    allowance = scores.size * options.false_keeps_per_mille // 1000
    calm = np.sort(scores[~labels])[::-1]
    # Every score at or below this one would keep more calm rows than allowed.
    refused = float(calm[allowance]) if calm.size > allowance else 0.0
    # A score of zero means that no tree objects: such a row is never worth keeping.
    wanted = scores[scores > refused]
    if wanted.size == 0:
        raise ModelTooWeakError(f"no validation row scores above {refused}: train on rows that hold anomalies")
    lowest_kept = float(wanted.min())
    below = float(scores[scores < lowest_kept].max(initial=0.0))
    threshold = float(np.float32((lowest_kept + below) / 2))
    _require_targets(scores >= threshold, labels, threshold)
    return threshold


def _require_targets(kept: Labels, labels: Labels, threshold: float) -> None:
    recall = float(kept[labels].mean()) if labels.any() else 0.0
    drop_ratio = 1.0 - float(kept.mean())
    if recall < RECALL_MIN or drop_ratio < DROP_RATIO_MIN:
        raise ModelTooWeakError(
            f"threshold {threshold:.6f} gives recall {recall:.4f} and drop ratio {drop_ratio:.4f} on validation rows, "
            f"expected at least {RECALL_MIN} and {DROP_RATIO_MIN}: check the record or enlarge the forest"
        )
