"""What one event satisfies: the reference meaning of conditions and comparisons.

Values are of three kinds that never compare with one another: text, numbers (whole or not, compared exactly) and truth
values. A null, a missing field or a value of another kind satisfies no comparison, not even `ne`.
"""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from contracts.edge_rules import contains_any, normalised
from contracts.rules import WORD_OPERATORS, Comparison, Condition, Scalar

_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
SIGNS: Final = {
    "eq": "=",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "contains_any": "contains",
    "contains_none": "without",
}
VALUES_SHOWN_MAX: Final = 8  # values of a list in words; thousands of them explain nothing


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
    if comparison.op in WORD_OPERATORS:
        return _contains(comparison.op == "contains_any", _words_of(comparison), value)
    if isinstance(wanted, tuple):
        return any(_equals(entry, value) for entry in wanted)
    if kind_of(value) is None or kind_of(value) != kind_of(wanted):
        return False
    if comparison.op == "contains":
        return isinstance(value, str) and isinstance(wanted, str) and wanted in value
    return _ORDERINGS[comparison.op](value, wanted)


def test_of(comparison: Comparison) -> Callable[[object], bool]:
    """Return `holds` of one comparison, made ready: of plain values, as messages bring them, it says the same."""
    op, wanted = comparison.op, comparison.value
    if op in WORD_OPERATORS:
        return partial(_contains, op == "contains_any", _words_of(comparison))
    if isinstance(wanted, tuple) or op == "contains":
        return partial(holds, comparison)
    classes = (int, float) if kind_of(wanted) == "number" else (type(wanted),)
    ordering = _ORDERINGS[op]
    return lambda value: type(value) in classes and ordering(value, wanted)


def describe(condition: Condition) -> str:
    """Return the condition as words, `clicks with event = "annotate"`."""
    if not condition.where:
        return condition.contract
    return f"{condition.contract} with " + " and ".join(_described(comparison) for comparison in condition.where)


def _words_of(comparison: Comparison) -> tuple[str, ...]:
    values = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    return tuple(dict.fromkeys(normalised(value) for value in values if isinstance(value, str)))


def _contains(wanted: bool, words: tuple[str, ...], value: object) -> bool:
    return isinstance(value, str) and contains_any(value, words) is wanted


def _described(comparison: Comparison) -> str:
    value = comparison.value
    if isinstance(value, tuple):
        shown = ", ".join(map(_quoted, value[:VALUES_SHOWN_MAX]))
        if len(value) > VALUES_SHOWN_MAX:
            shown += f" or one of {len(value) - VALUES_SHOWN_MAX} others"
    else:
        shown = _quoted(value)
    return f"{comparison.field} {SIGNS.get(comparison.op, comparison.op)} {shown}"


def _quoted(value: Scalar) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _equals(wanted: Scalar, value: object) -> bool:
    return kind_of(value) == kind_of(wanted) and value == wanted
