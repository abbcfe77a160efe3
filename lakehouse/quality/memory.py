"""What the quality process remembers from one start to the next: how far it has looked, and what it found. Pure.

1. look       rows are read and asked.
2. publish    the results are on the log. Crash before: the look is repeated and nothing is lost.
3. remember   the position goes into the file. Crash before: the look is repeated; its results come twice, with the same
              table, scope, snapshot and rule.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lakehouse.quality.results import EXAMPLE_CHARS_MAX, Look

POINTS_MAX: Final = 1_000  # of a table's plot; beyond it the older half is thinned, so that it spans weeks
FAILURES_MAX: Final = 50  # of a table's page


class Point(Struct, frozen=True):
    """One look, for the plot: how many rules were asked, and how many of them met."""

    at_ms: int
    scope: str
    rules: int
    met: int
    rows_checked: int


class Failure(Struct, frozen=True):
    """A rule that was not met, for the page."""

    at_ms: int
    scope: str
    rule: str
    source: str
    severity: str
    words: str
    rows: int
    failed: int
    examples: tuple[str, ...]
    error: str


class TableMemory(Struct, frozen=True):
    """Of one table; `sequence` is the newest sequence number that was looked at."""

    contract: str
    sequence: int = 0
    whole_at_ms: int = 0
    rows_committed: int = 0
    rows_checked: int = 0
    points: tuple[Point, ...] = ()
    failures: tuple[Failure, ...] = ()


class Memory(Struct, frozen=True):
    """`good`: analysts' files as they were followed last, by name."""

    tables: dict[str, TableMemory] = {}
    good: dict[str, str] = {}


def encode(memory: Memory) -> bytes:
    """Return JSON."""
    return msgspec.json.encode(memory)


def decode(data: bytes) -> Memory:
    """Parse what `encode` made. Raises msgspec.MsgspecError."""
    return msgspec.json.decode(data, type=Memory)


def after(table: TableMemory, look: Look) -> TableMemory:
    """Return what is remembered of a table once a look at it is published."""
    point = Point(look.at_ms, look.scope, len(look.outcomes), len(look.outcomes) - len(look.failed), look.rows_checked)
    points = _thinned((*table.points, point)) if look.outcomes else table.points
    failures = (*(_failures(look)), *table.failures)[:FAILURES_MAX]
    whole = look.scope == "whole"
    return replace(
        table,
        whole_at_ms=look.at_ms if whole else table.whole_at_ms,
        rows_committed=table.rows_committed + (0 if whole else look.rows_committed),
        rows_checked=table.rows_checked + (0 if whole else look.rows_checked),
        points=points,
        failures=failures,
    )


def _failures(look: Look) -> Sequence[Failure]:
    return [
        Failure(
            look.at_ms,
            look.scope,
            one.expectation.rule,
            one.expectation.source.value,
            one.expectation.severity.value,
            one.expectation.text,
            one.rows,
            one.failed,
            tuple(text[:EXAMPLE_CHARS_MAX] for text in one.examples),
            one.error,
        )
        for one in look.failed
    ]


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Leave out every second of the older half, of those at which all was well."""
    if len(points) <= POINTS_MAX:
        return points
    older, newer = points[: POINTS_MAX // 2], points[POINTS_MAX // 2 :]
    kept = tuple(point for at, point in enumerate(older) if at % 2 == 0 or point.met < point.rules)
    return (*kept, *newer)[-POINTS_MAX:]
