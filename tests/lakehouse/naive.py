"""Expectations asked of one row after the other, without a library: what every other way to ask is compared with."""

import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakehouse.quality.expectations import WHOLE_ONLY, Expectation, Kind, Outcome

# Columns of every type, and an expectation of every kind.
SCHEMA = pa.schema(
    [
        ("origin", pa.string()), ("epoch", pa.int64()), ("seq", pa.int64()), ("sealed_at", pa.timestamp("us", "UTC")),
        ("text", pa.string()), ("whole", pa.int32()), ("long", pa.int64()), ("small", pa.float32()),
        ("large", pa.float64()), ("at", pa.timestamp("us", "UTC")), ("yes", pa.bool_()),
    ]
)  # fmt: skip
EXPECTED = [
    Expectation("a", Kind.IDENTITY, ("origin", "epoch", "seq")),
    Expectation("b", Kind.NOT_NULL, ("text",)),
    Expectation("c", Kind.NOT_NULL, ("small",), mostly=0.5),
    Expectation("d", Kind.LENGTHS, ("text",), 1, 3),
    Expectation("e", Kind.IN_SET, ("text",), values=("a", "需要", "it's")),
    Expectation("f", Kind.PATTERN, ("text",), pattern=r"^[A-Z]\d+$"),
    Expectation("g", Kind.UNIQUE, ("text",)),
    Expectation("h", Kind.UNIQUE, ("long",), mostly=0.6),
    Expectation("i", Kind.BETWEEN, ("whole",), -1, 3),
    Expectation("j", Kind.BETWEEN, ("whole",), None, 2.5),
    Expectation("k", Kind.BETWEEN, ("small",), 0.25, None),
    Expectation("l", Kind.BETWEEN, ("large",), -1.0, 1.0, mostly=0.75),
    Expectation("m", Kind.BETWEEN, ("at",), "2026-01-01T00:00:00Z", "2026-01-01T08:00:05+08:00"),
    Expectation("n", Kind.AGE, ("at",), -2, 5),
    Expectation("o", Kind.IN_SET, ("whole",), values=(1, 2)),
    Expectation("p", Kind.NOT_NULL, ("yes",)),
]


class NaiveJudge:
    """Asks frames of a few rows."""

    def judge(self, rows: pa.Table, expected: Sequence[Expectation]) -> tuple[Outcome, ...]:
        records = rows.to_pylist()
        asked = [one for one in expected if one.kind not in WHOLE_ONLY]
        return tuple(verdict(one, records) for one in asked) if records else ()


def verdict(one: Expectation, records: list[dict[str, Any]]) -> Outcome:
    """What came of asking, without examples."""
    values = [tuple(record[name] for name in one.columns) for record in records]
    if one.kind is Kind.NOT_NULL:
        failed, asked = sum(value is None for (value,) in values), len(values)
    elif one.kind is Kind.MEAN:
        present = [value for (value,) in values if value is not None]
        met = not present or _inside(sum(present) / len(present), one)
        return Outcome(one, len(records), 0 if met else len(records), met)
    else:
        present_values = [value for value in values if None not in value]
        times = Counter(present_values)
        ages = [record["sealed_at"] for record in records if record[one.columns[0]] is not None]
        asked = len(present_values)
        failed = sum(_fails(one, value, times, sealed) for value, sealed in zip(present_values, ages, strict=True))
    return Outcome(one, len(records), failed, not asked or (asked - failed) / asked >= one.mostly)


def _fails(one: Expectation, value: tuple[Any, ...], times: Counter[tuple[Any, ...]], sealed: dt.datetime) -> bool:
    match one.kind:
        case Kind.BETWEEN:
            return not _inside(value[0], one)
        case Kind.LENGTHS:
            return not _inside(len(value[0]), one)
        case Kind.IN_SET:
            return value[0] not in one.values
        case Kind.PATTERN:
            return not re.search(one.pattern.replace("$", r"\Z"), value[0], re.ASCII)
        case Kind.UNIQUE | Kind.IDENTITY:
            return times[value] > 1
        case Kind.AGE:
            return not _inside((sealed - value[0]).total_seconds(), one)
    raise AssertionError(one.kind)


def _inside(value: Any, one: Expectation) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return False
    low, high = (dt.datetime.fromisoformat(end) if isinstance(end, str) else end for end in (one.low, one.high))
    return (low is None or value >= low) and (high is None or value <= high)
