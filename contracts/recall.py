"""What a filter missed, estimated from the sample of what it did not keep.

Every kept event can be judged; of the others only the sample can, which takes each with the same probability. With
`k` relevant events among the kept and `m` relevant ones in a sample of `n` out of `N` others, the others hold about
N * m / n relevant events (each counted by the inverse of its probability to be sampled), and

    recall = k / (k + N * m / n).

The share m / n has the exact interval of Clopper and Pearson (The Use of Confidence or Fiducial Limits Illustrated in
the Case of the Binomial, Biometrika 26, 1934), whose ends are quantiles of the beta distribution: it covers the truth
at least as often as it says, also for m = 0. Drawing without replacement only makes it wider than it need be. Recall
falls as the share rises, so the interval's ends carry over. No count below what was seen is possible: N * share >= m.

The beta distribution is computed by its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22).
"""

from math import exp, lgamma, log, log1p
from typing import Final

from msgspec import Struct

CONFIDENCE: Final = 0.95
_STEPS_MAX: Final = 10_000  # terms of the continued fraction; it needs about the root of the sample's size
_TINY: Final = 1e-300  # stands for a divisor of zero in the fraction's evaluation by Lentz
_PRECISION: Final = 1e-14  # relative; the interval's ends are read to four digits
_HALVINGS: Final = 200  # of [0, 1]; ends sooner, when a double cannot be halved any more


class Interval(Struct, frozen=True):
    """An estimate and its interval; the estimate is None when nothing relevant was seen at all."""

    value: float | None
    low: float
    high: float


class Recall(Struct, frozen=True):
    """What was counted, and what follows: relevant events that were missed, and the filter's recall."""

    kept_relevant: int
    passed_over: int
    sampled: int
    sampled_relevant: int
    confidence: float
    missed: Interval
    recall: Interval


def recall_of(
    kept_relevant: int, passed_over: int, sampled: int, sampled_relevant: int, confidence: float = CONFIDENCE
) -> Recall:
    """Return the filter's recall. `passed_over` events were not kept, `sampled` of them judged.

    Raises ValueError when the counts contradict each other. Without a sample any event passed over may have been
    relevant, or none.
    """
    if min(kept_relevant, sampled_relevant) < 0 or not sampled_relevant <= sampled <= passed_over:
        raise ValueError(
            f"recall: expected 0 <= sampled_relevant <= sampled <= passed_over and kept_relevant >= 0, found "
            f"{sampled_relevant}, {sampled}, {passed_over}, {kept_relevant}"
        )
    share = share_of(sampled_relevant, sampled, confidence)
    most = passed_over - sampled + sampled_relevant
    missed = Interval(
        None if share.value is None else passed_over * share.value,
        min(most, max(sampled_relevant, passed_over * share.low)),
        min(most, passed_over * share.high),
    )
    recall = Interval(
        None if missed.value is None else _ratio(kept_relevant, missed.value),
        _ratio(kept_relevant, missed.high) or 0.0,
        1.0 if missed.low == 0 else _ratio(kept_relevant, missed.low) or 0.0,
    )
    return Recall(kept_relevant, passed_over, sampled, sampled_relevant, confidence, missed, recall)


def share_of(count: int, total: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the share behind `count` of `total` with its interval after Clopper and Pearson.

    Raises ValueError unless 0 <= count <= total and 0 < confidence < 1.
    """
    if not 0 <= count <= total or not 0 < confidence < 1:
        raise ValueError(f"share {count}/{total} at {confidence}: expected 0 <= count <= total, 0 < confidence < 1")
    if total == 0:
        return Interval(None, 0.0, 1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _beta_quantile(tail, count, total - count + 1)
    high = 1.0 if count == total else _beta_quantile(1 - tail, count + 1, total - count)
    return Interval(count / total, low, high)


def _ratio(kept: int, missed: float) -> float | None:
    return kept / (kept + missed) if kept + missed else None


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = probability, by halving."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _beta_distribution(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_distribution(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for 0 < x < 1."""
    log_front = a * log(x) + b * log1p(-x) + lgamma(a + b) - lgamma(a) - lgamma(b)
    front = exp(log_front) if log_front > -700 else 0.0
    # The fraction converges fast only below the mean; above it the mirrored one does.
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of I_x(a, b), evaluated from its head after Lentz as 1 + fraction."""
    value = numerator = 1.0
    denominator = 0.0
    for step in range(_STEPS_MAX):
        half = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        denominator = 1 / (1 + term * denominator or _TINY)
        numerator = 1 + term / numerator or _TINY
        change = numerator * denominator
        value *= change
        if step and abs(1 - change) < _PRECISION:
            return value - 1
    raise ArithmeticError(f"incomplete beta at {x}, {a}, {b}: no value after {_STEPS_MAX} terms")
