"""What one change of a contract does to its table, and what may not happen between two writers of it."""

import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.table import Table
from pyiceberg.types import StringType

from contracts.contract import Contract, Conversion, Field, FieldType
from lakehouse.errors import CommitConflictError, SchemaBehindError, StoreUnavailableError, TableConflictError
from lakehouse.evolution import EVOLVE_TRIES_MAX, follow, layout_of
from lakehouse.history import ensure_history
from lakehouse.iceberg import IcebergLake, IcebergTable
from lakehouse.landing import backfilled, land
from lakehouse.layout import COLUMNS_PROPERTY, Column
from lakehouse.maintenance.compaction import compact
from lakehouse.schema import table_schema
from lakehouse.upcast import upcast
from tests.lakehouse.world import catalogs, commit_files, lose_first_answer

LONG, INT, TEXT, DOUBLE = FieldType.LONG, FieldType.INT, FieldType.STRING, FieldType.DOUBLE
FIRST = Contract(
    "press", "1.0.0", "Press", "Tests.", "tests", "lake_a", "field",
    (Field(1, "asset", TEXT, True), Field(2, "pressure", INT), Field(3, "took", DOUBLE, unit="s")), 30,
    subject_field="asset", sort_fields=("asset",),
)  # fmt: skip

SEQ = count()


def version(number: str, *fields: Field, **changes: Any) -> Contract:
    return replace(FIRST, version=number, fields=fields, **changes)


def field(at: int, **changes: Any) -> Field:
    return replace(FIRST.fields[at - 1], **changes)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[IcebergLake]:
    opened = IcebergLake(catalogs(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def table(lake: IcebergLake) -> IcebergTable:
    made = lake.open(FIRST)
    made.recover()
    return made


def named(contract: Contract, *rows: dict[str, Any]) -> pa.Table:
    system = {"origin": "d", "epoch": 1, "contract_version": contract.version, "sealed_at": 0}
    return pa.Table.from_pylist([system | {"seq": next(SEQ)} | row for row in rows], table_schema(contract))


def put(table: IcebergTable, contract: Contract, *rows: dict[str, Any]) -> None:
    table.reload()
    commit_files(table, table.write(land(named(contract, *rows), contract, table.layout)))


def found(table: IcebergTable, *columns: str) -> list[tuple[Any, ...]]:
    table.reload()
    rows = table.table.scan().to_arrow().sort_by("seq")
    return [tuple(row.values()) for row in rows.select(list(columns)).to_pylist()]


def names(table: Table) -> list[str]:
    return table.refresh().schema().column_names[5:]


def test_a_changed_type_becomes_a_column_of_its_own_beside_the_one_before(
    lake: IcebergLake, table: IcebergTable
) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    second = version("2.0.0", field(1), field(2, type=TEXT), field(3))
    lake.open(second)
    put(table, FIRST, {"asset": "a", "pressure": 2})
    put(table, second, {"asset": "a", "pressure": "3 巴"})
    assert names(table.table) == ["asset", "pressure", "took", "pressure__v1"]
    assert found(table, "pressure", "pressure__v1") == [(None, 1), ("2", 2), ("3 巴", None)]
    shadow = table.table.schema().find_field("pressure__v1")
    assert shadow.doc == "pressure as versions up to 1.0.0 said it."


def test_a_type_that_comes_back_takes_up_its_old_column(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    second = version("2.0.0", field(1), field(2, type=TEXT), field(3))
    third = version("3.0.0", field(1), field(2, type=LONG), field(3))
    lake.open(second)
    put(table, second, {"asset": "a", "pressure": "x"}, {"asset": "a", "pressure": "7"})
    lake.open(third)
    put(table, second, {"asset": "a", "pressure": " 2147483648 "})
    put(table, third, {"asset": "a", "pressure": 2**40})
    assert found(table, "pressure", "pressure__v2") == [
        (1, None), (None, "x"), (None, "7"), (2**31, " 2147483648 "), (2**40, None),
    ]  # fmt: skip


def test_another_unit_is_converted_as_the_contract_states(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "took": 0.25})
    second = version("2.0.0", field(1), field(2), field(3, unit="ms", conversions=(Conversion("s", 1_000.0),)))
    lake.open(second)
    put(table, FIRST, {"asset": "a", "took": 1.5})
    put(table, second, {"asset": "a", "took": 8.0})
    assert found(table, "took", "took__v1") == [(None, 0.25), (1_500.0, 1.5), (8.0, None)]


def test_another_unit_without_a_conversion_is_a_persons_decision(lake: IcebergLake, table: IcebergTable) -> None:
    with pytest.raises(TableConflictError, match="publish it with the conversion"):
        lake.open(version("2.0.0", field(1), field(2), field(3, unit="ms")))
    assert names(table.table) == ["asset", "pressure", "took"]


def test_who_writes_old_rows_anew_fills_the_newest_meaning(lake: IcebergLake, table: IcebergTable) -> None:
    for number in range(3):
        put(table, FIRST, {"asset": "a", "pressure": number})
        table.reload()
    lake.open(version("2.0.0", field(1), field(2, type=TEXT), field(3)))
    table.reload()
    assert found(table, "pressure") == [(None,), (None,), (None,)]
    assert compact(table.table, quiet=True).files == 3
    assert sorted(found(table, "pressure", "pressure__v1")) == [("0", 0), ("1", 1), ("2", 2)]


@pytest.mark.parametrize("gone", ["pressure", "pressure__v1"])
def test_a_meaning_that_somebody_dropped_by_hand_fills_nothing(
    lake: IcebergLake, table: IcebergTable, gone: str
) -> None:
    second = version("2.0.0", field(1), field(2, type=TEXT), field(3))
    lake.open(second)
    put(table, second, {"asset": "a", "pressure": "own"})
    with table.table.update_schema() as change:
        change.delete_column(gone)
    rows = table.table.scan().to_arrow()
    assert backfilled(rows, layout_of(table.table.metadata)).equals(rows)


def test_what_the_newest_meaning_has_is_not_filled_again(lake: IcebergLake, table: IcebergTable) -> None:
    second = version("2.0.0", field(1), field(2, type=TEXT), field(3))
    lake.open(second)
    put(table, second, {"asset": "a", "pressure": "own"})
    rows = table.table.scan().to_arrow()
    position = rows.schema.get_field_index("pressure__v1")
    rows = rows.set_column(position, rows.schema[position], pa.array([5], pa.int32()))
    assert backfilled(rows, table.layout).column("pressure").to_pylist() == ["own"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "the older one last"])
def test_an_older_version_undoes_nothing_in_whatever_order_they_come(
    lake: IcebergLake, table: IcebergTable, order: tuple[int, int]
) -> None:
    later = (
        version("1.1.0", field(1), field(2, name="force", type=LONG), field(3), Field(4, "note", TEXT)),
        version("1.2.0", Field(4, "remark", TEXT), field(1), field(2, name="pressure", type=LONG)),
    )
    for at in order:
        lake.open(later[at])
    put(table, later[0], {"asset": "a", "force": 2**40, "took": 1.0, "note": "x"})
    put(table, later[1], {"asset": "a", "pressure": 5, "remark": "y"})
    put(table, FIRST, {"asset": "a", "pressure": 1, "took": 2.0})
    assert names(table.table) == ["remark", "asset", "pressure"]
    assert found(table, "remark", "pressure") == [("x", 2**40), ("y", 5), (None, 1)]


def test_what_only_an_older_version_says_gets_a_column_however_late_it_is_published(
    lake: IcebergLake, table: IcebergTable
) -> None:
    second = version("2.0.0", field(1), field(2, type=TEXT), field(3))
    third = version("3.0.0", field(1, name="machine"), field(2, name="force", type=FieldType.BOOLEAN))
    third = replace(third, subject_field="machine", sort_fields=())
    lake.open(third)
    with pytest.raises(SchemaBehindError, match="is opened again"):
        land(named(second, {"asset": "a", "pressure": "x"}), second, layout_of(table.table.refresh().metadata))
    lake.open(second)
    put(table, second, {"asset": "a", "pressure": "True"}, {"asset": "a", "pressure": "x"})
    put(table, FIRST, {"asset": "a", "pressure": 1})
    assert names(table.table) == ["machine", "force", "pressure__v1", "pressure__v2"]
    assert found(table, "force", "pressure__v1", "pressure__v2") == [
        (True, None, "True"), (None, None, "x"), (None, 1, None),
    ]  # fmt: skip
    assert table.table.schema().find_field("pressure__v2").doc == "pressure as version 2.0.0 said it."


def test_a_name_that_is_used_again_is_another_column(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    lake.open(version("1.1.0", field(1), field(3)))
    again = version("1.2.0", field(1), field(3), Field(9, "pressure", INT))
    lake.open(again)
    put(table, FIRST, {"asset": "a", "pressure": 2})
    put(table, again, {"asset": "a", "pressure": 3})
    assert found(table, "pressure") == [(None,), (None,), (3,)]


def test_names_may_change_places(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1, "took": 2.0})
    lake.open(version("1.1.0", field(1), field(2, name="took"), field(3, name="pressure")))
    assert found(table, "took", "pressure") == [(1, 2.0)]


def test_widened_columns_are_pruned_by_the_bounds_of_old_files_too(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 7})
    lake.open(version("1.1.0", field(1), field(2, type=LONG), field(3)))
    put(table, FIRST, {"asset": "a", "pressure": -7})
    table.reload()
    assert table.table.scan(row_filter="pressure > 0").to_arrow().num_rows == 1
    assert table.table.scan(row_filter="pressure > 8").to_arrow().num_rows == 0


def test_a_narrower_type_lands_in_the_column_as_wide_as_it_is(lake: IcebergLake, table: IcebergTable) -> None:
    wide = version("1.1.0", field(1), field(2, type=LONG), field(3))
    lake.open(wide)
    lake.open(replace(FIRST, version="1.2.0"))
    put(table, wide, {"asset": "a", "pressure": 2**40})
    put(table, replace(FIRST, version="1.2.0"), {"asset": "a", "pressure": 4})
    assert found(table, "pressure") == [(2**40,), (4,)]


def test_a_renamed_subject_keeps_its_bounds_and_no_word_of_the_old_name(lake: IcebergLake, table: IcebergTable) -> None:
    lake.open(replace(version("1.1.0", field(1, name="machine"), field(2)), subject_field="machine", sort_fields=()))
    table.reload()
    kept = {name for name in table.table.properties if name.startswith("write.metadata.metrics.column.")}
    assert kept == {"write.metadata.metrics.column.machine"}


SWAPPED = version("1.1.0", field(1), field(2, name="took"), field(3, name="pressure"))
CHANGED = [
    (version("1.1.0", field(1), field(2, name="force"), field(3)), ["asset", "force", "took"], [5, 1.0]),
    (SWAPPED, ["asset", "took", "pressure"], [5, 1.0]),
    (version("1.1.0", field(1), Field(9, "pressure", INT), field(3)), ["asset", "pressure", "took"], [None, 1.0]),
    (version("1.1.0", field(1), field(2, type=LONG), field(3)), ["asset", "pressure", "took"], [5, 1.0]),
    (version("2.0.0", field(1), field(2, type=TEXT), field(3)), ["asset", "pressure", "took"], [None, 1.0]),
    (version("1.1.0", field(3), field(2), field(1)), ["took", "pressure", "asset"], [5, "a"]),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "columns", "values"), CHANGED)
@pytest.mark.parametrize("between", ["landed and written", "written and committed"])
def test_a_change_under_way_puts_no_value_under_another_column(
    lake: IcebergLake, table: IcebergTable, changed: Contract, columns: list[str], values: list[Any], between: str
) -> None:
    rows = land(named(FIRST, {"asset": "a", "pressure": 5, "took": 1.0}), FIRST, table.layout)
    if between == "landed and written":
        lake.open(changed)
        table.reload()
        written = table.write(rows)
    else:
        written = table.write(rows)
        lake.open(changed)
    commit_files(table, written)
    assert names(table.table)[: len(columns)] == columns
    assert list(found(table, *columns)[0][1:]) == values


def test_rows_newer_than_the_columns_in_hand_are_not_landed_short(lake: IcebergLake, table: IcebergTable) -> None:
    newer = version("1.1.0", *FIRST.fields, Field(4, "note", TEXT))
    lake.open(newer)
    with pytest.raises(SchemaBehindError, match=r"columns are known as of 1\.0\.0"):
        land(named(newer, {"asset": "a"}), newer, table.layout)
    table.reload()
    assert land(named(newer, {"asset": "a", "note": "n"}), newer, table.layout).column("note").to_pylist() == ["n"]


def test_a_table_from_before_columns_were_noted_down_is_taken_over_by_names(
    lake: IcebergLake, table: IcebergTable
) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    table.reload()
    with table.table.transaction() as change:
        change.remove_properties(COLUMNS_PROPERTY)
    lake.open(version("1.1.0", field(1), field(2), Field(4, "note", TEXT)))
    assert names(table.table) == ["asset", "pressure", "note", "took"]  # nobody knows whose `took` is
    assert found(table, "pressure") == [(1,)]


def test_a_column_that_somebody_added_by_hand_stays_and_is_not_taken_over(
    lake: IcebergLake, table: IcebergTable
) -> None:
    with table.table.update_schema() as change:
        change.add_column("remark", StringType())
    lake.open(version("1.1.0", field(1), field(2)))
    assert names(table.table) == ["asset", "pressure", "remark"]
    with pytest.raises(TableConflictError, match="rename or drop that one"):
        lake.open(version("1.2.0", field(1), Field(5, "remark", TEXT)))


def test_a_column_that_somebody_dropped_by_hand_comes_back_empty(lake: IcebergLake, table: IcebergTable) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    table.reload()
    with table.table.update_schema() as change:
        change.delete_column("pressure")
    lake.open(replace(FIRST, version="1.0.1"))
    assert names(table.table) == ["asset", "pressure", "took"]
    assert found(table, "pressure") == [(None,)]


def test_a_column_that_names_a_person_is_told_of_whatever_it_is_called(lake: IcebergLake, table: IcebergTable) -> None:
    person = field(1, classification="personal")
    second = version("2.0.0", replace(person, name="who"), field(2, type=TEXT, classification="personal"))
    lake.open(version("1.1.0", person, field(2, classification="personal")))
    lake.open(replace(second, subject_field="who", sort_fields=()))
    lake.open(version("1.2.0", person, field(2, type=DOUBLE, classification="personal")))
    table.reload()
    properties = table.table.properties
    assert properties["fieldlake.personal-fields"] == "who,pressure,pressure__v1,pressure__v1_2"
    assert {name.rpartition(".")[2]: value for name, value in properties.items() if ".metrics.column." in name} == {
        "who": "full", "pressure": "counts", "pressure__v1": "counts", "pressure__v1_2": "counts",
    }  # fmt: skip
    assert follow(table.table, second) == ()


def test_a_dropped_column_by_which_files_are_parted_stays_under_another_name(
    lake: IcebergLake, table: IcebergTable
) -> None:
    put(table, FIRST, {"asset": "机-1"})
    ensure_history(table.table)
    plain = replace(version("1.1.0", field(2), Field(7, "asset", TEXT)), subject_field=None, sort_fields=())
    lake.open(plain)
    put(table, plain, {"asset": "other"})
    assert names(table.table) == ["pressure", "asset", "asset__v1"]
    assert found(table, "asset", "asset__v1") == [(None, "机-1"), ("other", None)]


def test_schemas_that_no_snapshot_needs_are_forgotten(lake: IcebergLake, table: IcebergTable) -> None:
    for number in range(1, 40):
        lake.open(version(f"1.{number}.0", field(1), field(2, name=f"pressure_{number}")))
        put(table, FIRST, {"asset": "a", "pressure": number})
    table.reload()
    numbers = [schema.schema_id for schema in table.table.metadata.schemas]
    assert len(numbers) <= len(table.table.snapshots()) + 2
    assert len(set(numbers)) == len(numbers)
    assert found(table, "pressure_39") == [(number,) for number in range(1, 40)]


@pytest.mark.parametrize("losses", [1, EVOLVE_TRIES_MAX])
def test_a_change_that_meets_a_commit_is_planned_anew(
    lake: IcebergLake, table: IcebergTable, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    opened = lake.open(FIRST).table
    commit, lost = opened.catalog.commit_table, list[int]()

    def losing(*arguments: Any) -> Any:
        if len(lost) < losses:
            lost.append(1)
            raise CommitFailedException("moved")
        return commit(*arguments)

    monkeypatch.setattr(opened.catalog, "commit_table", losing)
    newer = version("1.1.0", field(1), field(2, name="force"))
    if losses < EVOLVE_TRIES_MAX:
        assert follow(opened, newer) == ("drops took", "renames pressure to force")
        assert found(table, "force") == [(1,)]
    else:
        with pytest.raises(CommitConflictError):
            follow(opened, newer)


@pytest.mark.parametrize("lands", [True, False])
def test_a_change_whose_answer_was_lost_is_looked_up_when_the_table_is_opened_again(
    lake: IcebergLake, table: IcebergTable, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    put(table, FIRST, {"asset": "a", "pressure": 1})
    newer = version("1.1.0", field(1), field(2, name="force"), Field(4, "note", TEXT))
    lose_first_answer(monkeypatch, table.table, CommitStateUnknownException("?"), lands)
    with pytest.raises(StoreUnavailableError):
        lake.open(newer)
    assert names(lake.open(newer).table) == ["asset", "force", "note"]
    put(table, newer, {"asset": "a", "force": 2, "note": "n"})
    assert found(table, "force", "note") == [(1, None), (2, "n")]


def test_the_first_columns_are_those_that_the_catalog_gave(table: IcebergTable) -> None:
    layout = layout_of(table.table.metadata)
    given = {c.name: c.field_id for c in table.table.schema().fields}
    assert {f.name: layout.columns.fields[f.id][0].column_id for f in FIRST.fields} == {
        f.name: given[f.name] for f in FIRST.fields
    }


CASES: list[tuple[FieldType, FieldType, list[Any], list[Any]]] = [
    (TEXT, LONG, ["1", " -7 ", "+3", "1.0", "", "9" * 19, "①", None], [1, -7, 3, None, None, None, None, None]),
    (TEXT, INT, ["2147483647", "2147483648"], [2**31 - 1, None]),
    (TEXT, DOUBLE, ["1.5", ".5", "2.", "1e3", "1e999", "nan", "inf", "0x1"], [1.5, 0.5, 2.0, 1e3, *[None] * 4]),
    (TEXT, FieldType.BOOLEAN, ["true", " FALSE", "1", "yes"], [True, False, None, None]),
    (LONG, TEXT, [1, -(2**63), None], ["1", str(-(2**63)), None]),
    (DOUBLE, TEXT, [0.1, -2.5], ["0.1", "-2.5"]),
    (FieldType.BOOLEAN, TEXT, [True, False], ["true", "false"]),
    (DOUBLE, INT, [1.0, 1.5, 2.0**31, -(2.0**31)], [1, None, None, -(2**31)]),
    (DOUBLE, LONG, [2.0**53, 2.0**60], [2**53, None]),
    (LONG, DOUBLE, [2**40], [2.0**40]),
    (DOUBLE, FieldType.FLOAT, [1e300, 0.5], [None, 0.5]),
    (FieldType.TIMESTAMPTZ, LONG, [5], [None]),
    (LONG, FieldType.TIMESTAMPTZ, [5], [None]),
    (FieldType.BOOLEAN, INT, [True], [None]),
]


@pytest.mark.parametrize(("source", "target", "values", "wanted"), CASES)
def test_a_value_is_cast_where_it_can_be(
    source: FieldType, target: FieldType, values: list[Any], wanted: list[Any]
) -> None:
    column = pa.chunked_array([pa.array(values, table_schema(version("1.0.0", Field(1, "x", source))).field("x").type)])
    assert upcast(column, Column(1, source), Column(2, target)).to_pylist() == wanted


def test_what_is_measured_is_rounded_and_what_is_too_large_is_not_guessed() -> None:
    millis = Column(2, LONG, "ms", (Conversion("s", 1_000.0), Conversion("C", 1.8, 32.0)))
    seconds = pa.chunked_array([pa.array([0.0015, 0.29, 1e300], pa.float64())])
    assert upcast(seconds, Column(1, DOUBLE, "s"), millis).to_pylist() == [2, 290, None]
    whole = pa.chunked_array([pa.array([5, 2**60], pa.int64())])
    assert upcast(whole, Column(1, LONG, "s"), millis).to_pylist() == [5_000, None]
    assert upcast(whole.slice(0, 1), Column(1, LONG, "C"), millis).to_pylist() == [41]
    assert upcast(whole, Column(1, LONG, "h"), millis).to_pylist() == [None, None]
    fraction = upcast(seconds, Column(1, DOUBLE, "s"), Column(2, DOUBLE, "ms", millis.conversions))
    assert math.isclose(fraction[1].as_py(), 290)
