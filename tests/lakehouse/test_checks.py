"""Vectorised checks against a naive oracle that looks at one row at a time."""

import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.contract import INTEGERS, Checks, Contract, Field, FieldType, check
from contracts.errors import ContractError
from lakehouse.checks import SECOND_US, TIME_US_MAX, TIME_US_MIN, Batches, hints, refusals, require_checkable
from lakehouse.schema import wire_schema

FIELDS = (
    Field(1, "name", FieldType.STRING, True, checks=Checks(max_length=4, unique=True)),
    Field(2, "kind", FieldType.STRING, checks=Checks(valid_values=("a", "需要"), known_values=("a",))),
    Field(3, "code", FieldType.STRING, checks=Checks(pattern=r"^[A-Z]\d+$")),
    Field(4, "whole", FieldType.INT, True, checks=Checks(minimum=-2.5, maximum=3)),
    Field(5, "serial", FieldType.LONG, checks=Checks(unique=True)),
    Field(6, "small", FieldType.FLOAT, checks=Checks(minimum=0)),
    Field(7, "large", FieldType.DOUBLE, True, checks=Checks(maximum=10)),
    Field(8, "at", FieldType.TIMESTAMPTZ, checks=Checks(age_max_s=10, ahead_max_s=2)),
    Field(9, "on", FieldType.BOOLEAN, True),
)  # fmt: skip
CONTRACT = Contract("probe", "1.0.0", "Probe", "Probe.", "nobody", "lake_a", "field", FIELDS, 1)
SEALED_US = 1_760_000_000_000_000

floats = st.one_of(st.none(), st.floats(width=32), st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 10.0]))
rows_of_all_kinds = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.one_of(st.none(), st.sampled_from(["a", "b", "", "需要比价", "😀😀😀😀", "12345"])),
            "kind": st.one_of(st.none(), st.sampled_from(["a", "需要", "b", ""])),
            "code": st.one_of(st.none(), st.sampled_from(["A1", "A1\n", "a1", "B٣", "", "xA1", "Z009"])),
            "whole": st.one_of(st.none(), st.integers(-4, 5)),
            "serial": st.one_of(st.none(), st.sampled_from([0, 1, 2, 2**63 - 1, -(2**63)])),
            "small": floats,
            "large": floats,
            "at": st.one_of(
                st.none(),
                st.integers(-13, 16).map(lambda s: SEALED_US + s * SECOND_US),
                st.sampled_from([TIME_US_MIN, TIME_US_MIN - 1, TIME_US_MAX + 1, SEALED_US - 10 * SECOND_US - 1]),
            ),
            "on": st.one_of(st.none(), st.booleans()),
        }
    ),
    max_size=30,
)


def verdict(field: Field, value: Any, before: list[Any], sealed_us: int | None) -> str | None:
    """The first check that one value fails; `before` are its batch's values above it."""
    checks = field.checks
    if value is None:
        return "required" if field.required else None
    if isinstance(value, float) and not math.isfinite(value):
        return "finite"
    low, high = checks.minimum, checks.maximum
    if field.type is FieldType.TIMESTAMPTZ:
        low, high = TIME_US_MIN, TIME_US_MAX
    if low is not None and value < low:
        return "minimum"
    if high is not None and value > high:
        return "maximum"
    if checks.max_length is not None and len(value) > checks.max_length:
        return "max_length"
    if checks.valid_values is not None and value not in checks.valid_values:
        return "valid_values"
    if checks.pattern is not None and not re.search(checks.pattern.replace("$", r"\Z"), value, re.ASCII):
        return "pattern"
    if checks.unique and value in before:
        return "unique"
    if sealed_us is not None and checks.age_max_s is not None and value < sealed_us - checks.age_max_s * SECOND_US:
        return "age_max_s"
    if sealed_us is not None and checks.ahead_max_s is not None and value > sealed_us + checks.ahead_max_s * SECOND_US:
        return "ahead_max_s"
    return None


def naive(rows: list[dict[str, Any]], batch_of_row: list[int], sealed_us: list[int] | None) -> list[str | None]:
    found: list[str | None] = []
    for at, row in enumerate(rows):
        above = [other for other in range(at) if batch_of_row[other] == batch_of_row[at]]
        sealed = None if sealed_us is None else sealed_us[batch_of_row[at]]
        rules = (
            (field.name, verdict(field, row[field.name], [rows[other][field.name] for other in above], sealed))
            for field in FIELDS
        )
        found.append(next((f"{name}.{rule}" for name, rule in rules if rule), None))
    return found


def table(rows: list[dict[str, Any]], chunk: int) -> pa.Table:
    whole = pa.Table.from_pylist([{"seq": at, **row} for at, row in enumerate(rows)], schema=wire_schema(CONTRACT))
    return pa.concat_tables([whole.slice(at, chunk) for at in range(0, len(rows), chunk)] or [whole])


@given(rows_of_all_kinds, st.integers(1, 9), st.lists(st.integers(-8, 8), min_size=1, max_size=4), st.booleans())
def test_every_row_gets_the_verdict_that_it_gets_alone(
    rows: list[dict[str, Any]], chunk: int, sealings: list[int], of_one: bool
) -> None:
    given_rows = table(rows, chunk)
    seen = given_rows.select([field.name for field in FIELDS]).to_pylist()  # float32 as the column holds it
    sealed_us = [SEALED_US + offset * SECOND_US for offset in sealings]
    batch_of_row = [0 if of_one else at * len(sealings) // max(1, len(rows)) for at in range(len(rows))]
    batches = None if of_one else Batches(np.array(batch_of_row, np.int64), np.array(sealed_us, np.int64))
    refused, rules = refusals(given_rows, CONTRACT, batches)
    expected = naive(seen, batch_of_row, None if of_one else sealed_us)
    assert refused.tolist() == [rule is not None for rule in expected]
    assert rules == [rule for rule in expected if rule is not None]
    unknown = sum(row["kind"] not in (None, "a") for row in seen)
    assert hints(given_rows, CONTRACT) == ({"kind.known_values": unknown} if unknown else {})


def test_a_value_may_come_again_in_another_batch() -> None:
    row = {"name": "a", "kind": None, "code": None, "whole": 0, "serial": 7, "small": None, "large": 0.0, "at": None}
    rows = table([row | {"on": True}] * 3, 2)
    owners = Batches(np.array([0, 1, 1], np.int64), np.array([SEALED_US, SEALED_US], np.int64))
    refused, rules = refusals(rows, CONTRACT, owners)
    assert (refused.tolist(), rules) == ([False, False, True], ["name.unique"])


def test_what_a_field_cannot_be_checked_for_is_said_before_it_is_published() -> None:
    def published(kind: FieldType, checks: Checks) -> None:
        contract = Contract("p", "1.0.0", "P", "P.", "n", "lake_a", "field", (Field(1, "f", kind, checks=checks),), 1)
        check(contract)
        require_checkable(contract)

    published(FieldType.STRING, Checks(pattern=r"^(?:IP|ip)(?P<n>\d\d)$", unique=True, reference="assets.asset_id"))
    published(FieldType.LONG, Checks(unique=True))
    wrong = [
        (FieldType.STRING, Checks(pattern="(?=a)b")),
        (FieldType.STRING, Checks(pattern=r"(a)\1")),
        (FieldType.STRING, Checks(pattern="a++")),
        (FieldType.STRING, Checks(pattern="(")),
        (FieldType.STRING, Checks(pattern="a{2000}")),
        (FieldType.STRING, Checks(pattern="a" * 513)),
        (FieldType.STRING, Checks(reference="assets")),
        (FieldType.STRING, Checks(age_max_s=5)),
        (FieldType.DOUBLE, Checks(unique=True)),
        (FieldType.LONG, Checks(pattern="1")),
        (FieldType.TIMESTAMPTZ, Checks(age_max_s=-5)),
    ]
    for kind, checks in wrong:
        with pytest.raises(ContractError):
            published(kind, checks)


def test_integers_are_among_what_is_compared_exactly() -> None:
    field = Field(1, "n", FieldType.LONG, checks=Checks(maximum=2**53))
    contract = Contract("p", "1.0.0", "P", "P.", "n", "lake_a", "field", (field,), 1)
    assert FieldType.LONG in INTEGERS
    refused, _ = refusals(pa.table({"n": pa.chunked_array([[2**53, 2**53 + 1]])}), contract)
    assert refused.tolist() == [False, True]
