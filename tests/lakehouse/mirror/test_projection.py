"""Rows from records: which column a value fills, what stays in `extra`, and that nothing is lost or shown twice."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.crm_change import Kind
from lakehouse.mirror import tables
from lakehouse.mirror.kinds import ACCOUNTS, ASSETS, CONTACTS, KINDS, OPPORTUNITIES, TASKS, RecordKind, kind_of
from lakehouse.mirror.projection import NULL, line_of, record_of, state_of
from tests.contracts.test_crm_change import JSON
from tests.lakehouse.mirror.messages import change, key, merged

BACK = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def row_of(kind: RecordKind, **fields: Any) -> dict[str, str | None]:
    """The row of a record with these fields, as COPY reads it."""
    line = line_of(kind, key("r\t1"), merged([change("r\t1", Kind.CREATED, 7, fields=fields)]))
    assert "\n" not in line
    cells = line.split("\t")
    assert len(cells) == len(tables.columns_of(kind))
    return {name: _unescaped(cell) for name, cell in zip(tables.columns_of(kind), cells, strict=True)}


def _unescaped(cell: str) -> str | None:
    if cell == NULL:
        return None
    found, rest = "", cell
    while rest:
        taken = BACK.get(rest[:2], rest[:1])
        found, rest = found + taken, rest[2 if rest[:2] in BACK else 1 :]
    return found


def extra_of(row: dict[str, str | None]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row["extra"] or "")
    return found


@pytest.mark.parametrize(
    ("kind", "field", "value", "column", "shown"),
    [
        (ACCOUNTS, "Name", "华东\t\\精工\n", "name", "华东\t\\精工\n"),
        (ACCOUNTS, "Account_Name", "", "name", ""),
        (ACCOUNTS, "Phone", 42, "phone", "42"),
        (ACCOUNTS, "AnnualRevenue", "12.50", "annual_revenue", "12.50"),
        (ACCOUNTS, "annualrevenue", -1e21, "annual_revenue", "-1e21"),
        (ACCOUNTS, "annualrevenue", "9" * 28 + "." + "9" * 10, "annual_revenue", "9" * 28 + "." + "9" * 10),
        (CONTACTS, "Account_Name", {"id": "77", "name": "x"}, "account_id", "77"),
        (OPPORTUNITIES, "closedate", "1764547200000", "close_date", "2025-12-01"),
        (OPPORTUNITIES, "CloseDate", "2026-02-28", "close_date", "2026-02-28"),
        (TASKS, "Due_Date", "2026-11-22T23:30:00-08:00", "due_at", "2026-11-23T07:30:00+00:00"),
        (TASKS, "ActivityDate", "2026-11-22T10:00:00.000+0000", "due_at", "2026-11-22T10:00:00+00:00"),
        (ASSETS, "SerialNumber", "SN-1", "asset_id", "SN-1"),
    ],
)
def test_a_value_that_fits_fills_its_column(
    kind: RecordKind, field: str, value: object, column: str, shown: str
) -> None:
    row = row_of(kind, **{field: value})
    assert row[column] == shown
    assert extra_of(row) == {}


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (ACCOUNTS, "AnnualRevenue", "much"),
        (ACCOUNTS, "AnnualRevenue", "1" * 300),
        (ACCOUNTS, "NumberOfEmployees", "1e999"),
        (ACCOUNTS, "AnnualRevenue", "0.12345678901"),
        (ACCOUNTS, "AnnualRevenue", "1e28"),
        (ACCOUNTS, "AnnualRevenue", "٣"),
        (ACCOUNTS, "Name", {"FirstName": "A"}),
        (ACCOUNTS, "OwnerId", "x" * 300),
        (OPPORTUNITIES, "CloseDate", "2026-02-30"),
        (OPPORTUNITIES, "CloseDate", "99999999999999999999"),
        (OPPORTUNITIES, "CloseDate", ""),
        (TASKS, "Due_Date", "0001-01-01T00:00:00+14:00"),
        (ACCOUNTS, "Neu__c", [1, {"客户": None}]),
    ],
)
def test_a_value_that_does_not_fit_is_in_extra(kind: RecordKind, field: str, value: object) -> None:
    row = row_of(kind, **{field: value})
    assert extra_of(row) == {field: value}
    assert {row[column.name] for column in kind.columns if not column.own_id} == {None}


def test_of_two_fields_for_a_column_the_preferred_one_fills_it() -> None:
    for fields in ({"name": "a", "Name": "b"}, {"Name": "b", "name": "a"}):
        row = row_of(ACCOUNTS, **fields)
        assert row["name"] == "a"
        assert extra_of(row) == {"Name": "b"}


def test_an_id_without_a_field_is_the_records_own() -> None:
    assert row_of(ACCOUNTS)["account_id"] == "r\t1"


@given(st.data())
def test_every_value_is_shown_once(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    known = sorted({name for column in kind.columns for name in column.fields} | {"Neu__c", "层级"})
    fields = data.draw(st.dictionaries(st.sampled_from(known), JSON, max_size=6))
    row = row_of(kind, **fields)
    extra = extra_of(row)
    filled = sum(row[c.name] is not None and not (c.own_id and row[c.name] == "r\t1") for c in kind.columns)
    own_id = sum(c.own_id and any(fields.get(name) == "r\t1" for name in c.fields) for c in kind.columns)
    assert len(extra) + filled + own_id == sum(value is not None for value in fields.values())
    assert all(fields[name] == value for name, value in extra.items())


@given(st.dictionaries(st.sampled_from(("Name", "客户")), JSON))
def test_what_is_kept_for_the_next_merge_is_all_of_the_record(fields: dict[str, Any]) -> None:
    record = merged([change("1", Kind.CREATED, 3, 4, fields=fields), change("1", Kind.GAP, 9)])
    assert record_of(state_of(record), record.seen_us, record.swept_us) == record


def test_no_field_fills_two_columns_of_a_table() -> None:
    for kind in KINDS:
        fields = [name for column in kind.columns for name in column.fields]
        assert len(set(fields)) == len(fields), kind.table


def test_objects_are_found_by_their_vendors_names() -> None:
    assert [kind_of(name).table for name in ("Account", "companies", "DEALS", "0-5", "Thing__c")] == [
        "accounts", "accounts", "opportunities", "cases", "records",
    ]  # fmt: skip
