"""Expectations asked of rows by Great Expectations.

The library takes 2 s and 280 MB to load, so only the quality process does; its context is made once.
"""

import logging
import os
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

# Before the import: it would send what it is asked to its maker's server.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation as GxExpectation

from lakehouse.quality.analyst import bound
from lakehouse.quality.expectations import EXAMPLES_MAX, SEALED_AT, WHOLE_ONLY, Expectation, Kind, Outcome

AGE_SUFFIX: Final = "__age_s"  # no field's name has two underscores at its end and this behind
_RESULT: Final = {"result_format": "BASIC", "partial_unexpected_count": EXAMPLES_MAX}


def suite(expected: Sequence[Expectation]) -> list[GxExpectation]:
    """Return expectations as the library's own objects, in order."""
    return [_translated(one) for one in expected]


class Judge:
    """Asks frames. Not for use from two threads at once."""

    def __init__(self) -> None:
        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        asset = context.data_sources.add_pandas("committed").add_dataframe_asset("rows")
        self._batches = asset.add_batch_definition_whole_dataframe("all")

    def judge(self, rows: pa.Table, expected: Sequence[Expectation]) -> tuple[Outcome, ...]:
        """Ask all expectations of rows, in order; those that only a whole table can answer are left out."""
        if not rows.num_rows:
            return ()
        answered: dict[Expectation, Outcome] = {}
        askable: list[Expectation] = []
        for one in expected:
            missing = set(one.columns).difference(rows.column_names)
            if missing:  # a version's new column, before the table has it
                why = f"the table has no column {', '.join(sorted(missing))} yet"
                answered[one] = Outcome(one, 0, 0, False, error=why)
            elif one.kind not in WHOLE_ONLY:
                askable.append(one)
        answered.update(zip(askable, self._ask(rows, askable), strict=True))
        return tuple(answered[one] for one in expected if one in answered)

    def _ask(self, rows: pa.Table, asked: Sequence[Expectation]) -> tuple[Outcome, ...]:
        if not asked:
            return ()
        batch = self._batches.get_batch({"dataframe": frame(rows, asked)})
        # Asked one by one through one batch, metrics are computed once; the suite's results come back out of order.
        names = [str(at) for at in range(len(asked))]
        objects = suite(asked)
        for name, one in zip(names, objects, strict=True):
            one.meta = {"at": name}
        results = batch.validate(gx.ExpectationSuite(name="asked", expectations=objects), result_format=_RESULT).results
        by_place = {_place(result): result for result in results}
        return tuple(_outcome(one, by_place[name], rows) for name, one in zip(names, asked, strict=True))


def _place(result: Any) -> str:
    place: str = result.expectation_config.meta["at"]
    return place


def frame(rows: pa.Table, expected: Sequence[Expectation]) -> pd.DataFrame:
    """Return the columns that are asked about, the ages of moments in seconds, and whether patterns are found.

    The library matches now with one engine and now with another, by what the column holds; ours is the one of ingest.
    """
    names = sorted({name for one in expected for name in one.columns if name in rows.column_names})
    made = rows.select(names)
    for one in expected:
        if one.kind is Kind.AGE:
            micros = [rows.column(name).cast(pa.int64()) for name in (SEALED_AT, *one.columns)]
            seconds = pc.divide(pc.subtract(*micros).cast(pa.float64()), 1e6)
            made = made.append_column(one.columns[0] + AGE_SUFFIX, seconds)
        if one.kind is Kind.PATTERN and _matched(one) not in made.column_names:
            found = pc.match_substring_regex(rows.column(one.columns[0]), one.pattern)
            made = made.append_column(_matched(one), found)
    return made.to_pandas(types_mapper=pd.ArrowDtype)


def _translated(one: Expectation) -> GxExpectation:
    share: dict[str, Any] = {"mostly": one.mostly}
    column = one.columns[0] if one.columns else ""
    bounds = {"min_value": bound(one.low), "max_value": bound(one.high)}
    match one.kind:
        case Kind.NOT_NULL:
            return gxe.ExpectColumnValuesToNotBeNull(column=column, **share)
        case Kind.BETWEEN:
            return gxe.ExpectColumnValuesToBeBetween(column=column, **bounds, **share)
        case Kind.AGE:
            return gxe.ExpectColumnValuesToBeBetween(column=column + AGE_SUFFIX, **bounds, **share)
        case Kind.LENGTHS:
            return gxe.ExpectColumnValueLengthsToBeBetween(column=column, **bounds, **share)
        case Kind.IN_SET:
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(one.values), **share)
        case Kind.PATTERN:
            return gxe.ExpectColumnValuesToBeInSet(column=_matched(one), value_set=[True], **share)
        case Kind.UNIQUE:
            return gxe.ExpectColumnValuesToBeUnique(column=column, **share)
        case Kind.IDENTITY:
            return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(one.columns))
        case Kind.MEAN:
            return gxe.ExpectColumnMeanToBeBetween(column=column, **bounds)
    raise ValueError(f"{one.kind}: is not asked of a frame")


def _matched(one: Expectation) -> str:
    """Name of the column that says whether a text matches; no field has such a one."""
    return f"{one.columns[0]} =~ {one.pattern}"


def _unmatched(table: pa.Table, one: Expectation) -> list[str]:
    column = table.column(one.columns[0])
    failing = column.filter(pc.invert(pc.match_substring_regex(column, one.pattern)))
    return failing.slice(0, EXAMPLES_MAX).to_pylist()  # type: ignore[no-any-return]


def _outcome(one: Expectation, result: Any, table: pa.Table) -> Outcome:
    found: dict[str, Any] = result.result
    rows = table.num_rows
    if result.exception_info.get("raised_exception", True):
        return Outcome(one, rows, 0, False, error=_reason(result.exception_info))
    if one.kind is Kind.MEAN:
        met = bool(result.success)
        shown = () if met else (f"mean {found.get('observed_value')}",)
        return Outcome(one, rows, 0 if met else rows, met, shown)
    failing = _unmatched(table, one) if one.kind is Kind.PATTERN else found["partial_unexpected_list"]
    examples = () if one.kind is Kind.NOT_NULL else tuple(_shown(value) for value in failing)
    return Outcome(one, rows, int(found["unexpected_count"]), bool(result.success), examples)


def _reason(info: dict[str, Any]) -> str:
    """The library says it once, or once for every metric."""
    inner = info if "exception_message" in info else next(iter(info.values()))
    return str(inner["exception_message"])


def _shown(value: Any) -> str:
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
