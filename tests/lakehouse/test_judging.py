"""Great Expectations against asking row by row: the same rows fail, whatever is in them."""

import datetime as dt
import math
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.contract import Checks
from infra.setup.paths import quality_env, site_packages
from lakehouse.quality.expectations import EXAMPLES_MAX, Expectation, Kind, of_contract
from lakehouse.schema import table_schema
from tests.lakehouse.frames import CONTRACTS, telemetry
from tests.lakehouse.naive import EXPECTED, SCHEMA, verdict
from tests.lakehouse.staging import Stage

# Behind all others, as the library lies in an environment of its own.
sys.path.append(str(site_packages(quality_env())))
from lakehouse.quality.judging import Judge, suite

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
floats = st.none() | st.sampled_from([0.0, -0.0, 0.25, 1.0, -1.0, 1.5, math.nan, math.inf, -math.inf])
seconds = st.integers(-7, 7).map(lambda n: AT + dt.timedelta(seconds=n))
records = st.lists(
    st.fixed_dictionaries(
        {
            "origin": st.sampled_from(["d1", "d2"]), "epoch": st.just(1), "seq": st.integers(0, 4),
            "sealed_at": seconds,
            "text": st.none() | st.sampled_from(["a", "需要", "it's", "A1", "A1\n", "B٣", "", "😀😀😀😀"]),
            "whole": st.none() | st.integers(-3, 5), "long": st.none() | st.sampled_from([2**63 - 1, 2**63 - 2, 0]),
            "small": floats, "large": floats, "at": st.none() | seconds, "yes": st.none() | st.booleans(),
        }
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(rows=records)
def test_the_library_finds_what_looking_at_each_row_finds(judge: Judge, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    found = judge.judge(table, EXPECTED)
    expected = [verdict(one, table.to_pylist()) for one in EXPECTED]
    assert [(o.expectation.rule, o.error) for o in found] == [(one.rule, "") for one in EXPECTED]
    assert [(o.expectation.rule, o.rows, o.failed, o.met) for o in found] == [
        (o.expectation.rule, o.rows, o.failed, o.met) for o in expected
    ]
    assert all(len(o.examples) <= EXAMPLES_MAX for o in found)


def test_a_mean_says_what_it_is(judge: Judge) -> None:
    table = pa.table({"whole": [1, 2, None, 6]})
    within, without = (Expectation("m", Kind.MEAN, ("whole",), low, 10) for low in (3, 4))
    met, failed = judge.judge(table, [within, without])
    assert (met.met, failed.met, failed.examples) == (True, False, ("mean 3.0",))


def test_every_shipped_contract_becomes_a_suite_that_an_empty_and_a_full_table_can_be_asked(judge: Judge) -> None:
    for contract in CONTRACTS.values():
        expected = of_contract(contract, CONTRACTS)
        assert len(suite(expected)) == len(expected)
        schema = table_schema(contract)
        assert judge.judge(schema.empty_table(), expected) == ()
        nulls = pa.Table.from_arrays([pa.nulls(3, field.type) for field in schema], names=schema.names)
        outcomes = judge.judge(nulls, expected)
        assert {one.error for one in outcomes} == {""}
        required = {f"{field.name}.required" for field in contract.fields if field.required}
        assert {one.expectation.rule for one in outcomes if not one.met} == required


def test_what_cannot_be_asked_is_an_error_and_no_verdict_on_others(judge: Judge) -> None:
    table = pa.table({"whole": [1], "text": ["a"]})
    lost = [
        Expectation("lost", Kind.BETWEEN, ("nowhere",), 1, 2),
        Expectation("old", Kind.AGE, ("nowhere",), 1, 2),
        Expectation("odd", Kind.PATTERN, ("nowhere",), pattern="a"),
    ]
    sound = Expectation("sound", Kind.NOT_NULL, ("text",))
    *broken, met = judge.judge(table, [*lost, sound])
    assert all(one.error and not one.met for one in broken)
    assert (met.error, met.met) == ("", True)


def test_ages_are_asked_of_a_contract_that_limits_them(judge: Judge) -> None:
    clicks = CONTRACTS["clicks"]
    limit = Checks(age_max_s=5, ahead_max_s=2)
    fields = tuple(replace(f, checks=limit) if f.name == "occurred_at" else f for f in clicks.fields)
    (age,) = [one for one in of_contract(replace(clicks, fields=fields)) if one.kind is Kind.AGE]
    moments = [AT - dt.timedelta(seconds=n) for n in (0, 5, 6, -2, -3)]
    kind = pa.timestamp("us", "UTC")
    table = pa.table({"sealed_at": pa.array([AT] * 5, kind), "occurred_at": pa.array(moments, kind)})
    (outcome,) = judge.judge(table, [age])
    assert (outcome.failed, outcome.met) == (2, False)


def test_the_library_tells_nobody_what_it_is_asked() -> None:
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_the_process_finds_a_planted_fault_with_the_library(judge: Judge, tmp_path: Path) -> None:
    stage = Stage(tmp_path, judge)
    stage.commit(telemetry(range(20)))
    stage.step()
    stage.plant(range(100, 103), f3=-200_000)
    stage.step()
    found = [row for row in stage.results() if row["checked_table"] == "lake_a.field.telemetry"]
    assert [(row["rule"], row["met"], row["rows_failed"], row["examples"]) for row in found] == [
        ("*", True, 0, "[]"),
        ("*", False, 3, "[]"),
        ("f3.range", False, 3, '["-200000","-200000","-200000"]'),
    ]
    stage.close()
