"""Patterns made ready to be matched: what of a document's pattern the marks of a subject are compared with."""

import operator
from collections.abc import Callable, Sequence
from math import fsum
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from contracts.rules import AllOf, CountOf, Pattern, SequenceOf, ThresholdOf, absences

US_PER_S: Final = 1_000_000


class Timing(Struct, frozen=True):
    """A rule's times in the unit of event times."""

    within_us: int
    cooldown_us: int


class Everything(Struct, frozen=True):
    """`all`, made ready: so many conditions."""

    conditions: int


class Run(Struct, frozen=True):
    """`count`, made ready: marks of condition 0; with `in_a_row` those without it break the run."""

    at_least: int
    in_a_row: bool


class Link(Struct, frozen=True):
    """A step, made ready: at most `after_us` behind the one before, and no mark between with any of these bits."""

    after_us: int
    without: int


class Chain(Struct, frozen=True):
    """`sequence`, made ready: link i stands for condition i."""

    links: tuple[Link, ...]


class Level(Struct, frozen=True):
    """`threshold`, made ready."""

    at_least: int
    of: Callable[[Sequence[Any]], float]
    passes: Callable[[float, float], bool]
    value: float


Form: TypeAlias = Everything | Run | Chain | Level

_AGGREGATES: Final[dict[str, Callable[[Sequence[Any]], float]]] = {
    "sum": fsum,
    "mean": lambda values: fsum(values) / len(values),
    "min": min,
    "max": max,
    "distinct": lambda values: len({(type(value) is bool, value) for value in values}),
}
_ORDERINGS: Final[dict[str, Callable[[float, float], bool]]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def form_of(pattern: Pattern) -> Form:
    """Make a pattern ready."""
    match pattern:
        case AllOf(conditions=found):
            return Everything(len(found))
        case CountOf(at_least=at_least, among=among):
            return Run(at_least, among is not None)
        case ThresholdOf(at_least=at_least, aggregate=aggregate, op=op, value=value):
            return Level(at_least, _AGGREGATES[aggregate], _ORDERINGS[op], value)
        case SequenceOf(steps=steps, within_s=within_s):
            bit_of = {msgspec.json.encode(one): len(steps) + at for at, one in enumerate(absences(steps))}
            return Chain(
                tuple(
                    Link(
                        (within_s if step.after_s_max is None else step.after_s_max) * US_PER_S,
                        sum(1 << bit for bit in {bit_of[msgspec.json.encode(one)] for one in step.without}),
                    )
                    for step in steps
                )
            )
