"""What one event satisfies: the reference meaning of conditions and comparisons.

Values are of three kinds that never compare with one another: text, numbers (whole or not, compared exactly) and truth
values. A null, a missing field or a value of another kind satisfies no comparison, not even `ne`.
"""

import operator
from collections.abc import Callable
from typing import Any, Final

from contracts.rules import Comparison, Condition, Scalar

_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_SIGNS: Final = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def kind_of(value: object) -> str | None:
    """Return `text`, `number` or `truth`; None for a null and for everything that no rule can compare."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None


def holds(comparison: Comparison, value: object) -> bool:
    """Say whether a field's value satisfies a comparison."""
    wanted = comparison.value
    if isinstance(wanted, tuple):
        return any(_equals(entry, value) for entry in wanted)
    if kind_of(value) is None or kind_of(value) != kind_of(wanted):
        return False
    if comparison.op == "contains":
        return isinstance(value, str) and isinstance(wanted, str) and wanted in value
    return _ORDERINGS[comparison.op](value, wanted)


def describe(condition: Condition) -> str:
    """Return the condition as words, `clicks with event = "annotate"`."""
    if not condition.where:
        return condition.contract
    return f"{condition.contract} with " + " and ".join(_words(comparison) for comparison in condition.where)


def _words(comparison: Comparison) -> str:
    value = comparison.value
    shown = ", ".join(map(_quoted, value)) if isinstance(value, tuple) else _quoted(value)
    return f"{comparison.field} {_SIGNS.get(comparison.op, comparison.op)} {shown}"


def _quoted(value: Scalar) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _equals(wanted: Scalar, value: object) -> bool:
    return kind_of(value) == kind_of(wanted) and value == wanted
