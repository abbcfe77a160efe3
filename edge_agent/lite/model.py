"""Scores of a filter model in plain Python, bit for bit those of ONNX Runtime.

What has to match is the order of additions and where each is rounded to 32 bits:

- Trees: the runtime compares in 32 bits, adds the leaves' values in the order of the trees to a 32-bit sum that begins
  at zero, divides by the number of trees where the model averages, and adds the base value. A sum, quotient or product
  of 32-bit numbers in 64 bits that is then rounded to 32 is the 32-bit result (64-bit numbers have more than twice the
  digits and two: Figueroa, When is double rounding innocuous?, SIGNUM 30, 1995); so one rounding follows each step.
- Linear: the runtime's matrix product goes through the inputs from the first to the last with one fused multiply-add
  each, beginning at zero, then adds the intercept. The product of two 32-bit numbers is exact in 64 bits; the sum is
  not, and rounding it twice could end on the wrong side of a tie, so `_fused` looks at ties again. This holds for
  two rows and more per call, up to 1,024 inputs, on processors with a fused multiply-add (x86-64 since 2013, ARM64);
  the runtime itself gives other bits on others.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from contracts.lite_model import LEAF, LiteModel, Trees

Row: TypeAlias = Sequence[float]  # 32-bit values, see `edge_agent.core.filter.filtering`

# (feature, value, child for values up to it, child for others, child for none); a leaf's children are None.
_Node: TypeAlias = tuple[int, float, Any, Any, Any]


def scorer_of(model: LiteModel) -> Callable[[Sequence[Row]], list[float]]:
    """Return what scores rows of 32-bit values; a checked model is expected."""
    if isinstance(model, Trees):
        return TreeScorer(model).scores
    coefficients, intercept = model.coefficients, model.intercept
    return lambda rows: [_linear(row, coefficients, intercept) for row in rows]


class TreeScorer:
    """Scores rows by trees. A tree is nodes that hold their children, so that a step needs no look-up by number."""

    def __init__(self, model: Trees) -> None:
        nodes: list[_Node | None] = [None] * len(model.features)
        absent = model.absent or model.high
        for at in range(len(nodes) - 1, -1, -1):  # children stand behind their parents
            if model.features[at] == LEAF:
                nodes[at] = (LEAF, model.values[at], None, None, None)
            else:
                children = nodes[model.low[at]], nodes[model.high[at]], nodes[absent[at]]
                nodes[at] = (model.features[at], model.values[at], *children)
        self._roots = [nodes[root] for root in model.roots]
        self._divisor = len(model.roots) if model.average else 1
        self._base = model.base

    def scores(self, rows: Sequence[Row]) -> list[float]:
        """Return one score per row."""
        rounded = array("f", (0.0,))
        base, divisor = self._base, self._divisor
        scores: list[float] = []
        for row in rows:
            rounded[0] = 0.0
            if any(value != value for value in row):
                self._add_with_gaps(row, rounded)
            else:
                self._add(row, rounded)
            if divisor != 1:
                rounded[0] = rounded[0] / divisor
            rounded[0] += base
            scores.append(rounded[0])
        return scores

    def _add(self, row: Row, rounded: "array[float]") -> None:
        for node in self._roots:
            feature, value, low, high, _ = node  # type: ignore[misc]
            while feature >= 0:
                feature, value, low, high, _ = low if row[feature] <= value else high
            rounded[0] += value

    def _add_with_gaps(self, row: Row, rounded: "array[float]") -> None:
        for node in self._roots:
            feature, value, low, high, absent = node  # type: ignore[misc]
            while feature >= 0:
                found = row[feature]
                feature, value, low, high, absent = absent if found != found else low if found <= value else high
            rounded[0] += value


def _linear(row: Row, coefficients: Sequence[float], intercept: float) -> float:
    rounded = array("f", (0.0,))
    total = 0.0
    for value, coefficient in zip(row, coefficients, strict=True):
        total = _fused(value * coefficient, total, rounded)
    rounded[0] = total + intercept
    return rounded[0]


def _fused(product: float, total: float, rounded: "array[float]") -> float:
    """Return product + total, rounded once to 32 bits; `product` is exact, `rounded` a place to work in."""
    wide = product + total
    rounded[0] = wide
    near = rounded[0]
    beyond = near + 2 * (wide - near)
    rounded[0] = beyond
    if rounded[0] != beyond or beyond == near:
        return near  # not half-way between two 32-bit numbers: what 64 bits left out cannot matter
    # What 64 bits left out of the sum (Knuth, The Art of Computer Programming 2, 4.2.2, theorem B).
    part = wide - product
    left_out = (product - (wide - part)) + (total - part)
    if left_out == 0:
        return near  # a true tie, which was rounded to even
    return max(near, beyond) if left_out > 0 else min(near, beyond)
