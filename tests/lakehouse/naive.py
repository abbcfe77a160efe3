"""Expectations asked of one row after the other, without a library: what every other way to ask is compared with."""

import datetime as dt
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lakehouse.quality.expectations import WHOLE_ONLY, Expectation, Kind, Outcome


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
