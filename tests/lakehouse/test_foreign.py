"""Tables of other writers: their right rows, or a typed refusal that says what and where."""

import csv
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from infra.setup.paths import repo_root
from lakehouse.errors import BrokenTableError, ForeignTableError, UnsupportedTableError
from lakehouse.foreign import matches, open_foreign
from lakehouse.foreign_limits import FORMAT_VERSIONS, UNREADABLE_TYPES, check_metadata
from tests.lakehouse.foreign_tables import (
    POSITION_IDS,
    ROWS,
    SCHEMA,
    catalog_in,
    document,
    made_table,
    metadata_file,
    with_deletes,
)

DATA = Path(os.environ.get("FIELDLAKE_DATA_DIR", repo_root().parent / "shared" / "data")) / "iceberg_foreign"
REFERENCE = DATA / "reference_read_duckdb_1.4.4.csv"
# DuckDB 1.4.4 leaves out the row of partition `d`, for which no delete file exists; later releases show it.
DUCKDB_LOSES_A_ROW = "data/persistent/equality_deletes/warehouse/mydb/mytable_partitioned"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqlCatalog]:
    made = catalog_in(tmp_path / "warehouse")
    yield made
    made.engine.dispose()


def read(location: str, properties: dict[str, str] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_foreign(location, properties or {}).to_arrow().to_pylist()
    return sorted(found, key=repr)


def references() -> list[dict[str, str]]:
    return list(csv.DictReader(REFERENCE.read_text().splitlines())) if REFERENCE.exists() else []


def shown(rows: pa.Table) -> str:
    """The reference's digest; DuckDB turns the columns into its own Python values."""
    with duckdb.connect() as engine:
        found = engine.register("rows", rows).execute("SELECT * FROM rows").fetchall()
    return hashlib.sha256("\n".join(sorted(map(repr, found))).encode()).hexdigest()[:16]


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("line", references(), ids=lambda line: str(line["table"]).rpartition("/")[2])
def test_tables_of_other_engines_have_the_rows_that_another_reader_saw(line: dict[str, str]) -> None:
    rows = open_foreign(line["table"], {}, str(DATA)).to_arrow()
    assert rows.num_columns == int(line["columns"])
    if line["table"] == DUCKDB_LOSES_A_ROW:
        assert sorted(rows.column("name").to_pylist()) == ["a", "d", "e"]
        assert shown(rows.filter(pc.not_equal(rows["name"], "d"))) == line["sha256_16_of_sorted_python_reprs"]
    else:
        assert (rows.num_rows, shown(rows)) == (int(line["rows"]), line["sha256_16_of_sorted_python_reprs"])


@pytest.mark.skipif(not REFERENCE.exists(), reason="the shared data is not here")
def test_every_older_state_of_a_table_with_deletes_is_read_as_it_was() -> None:
    folder = f"{DUCKDB_LOSES_A_ROW}/metadata"
    names = {
        version: open_foreign(f"{folder}/v{version}.metadata.json", {}, str(DATA)).to_arrow()["name"].to_pylist()
        for version in range(1, 7)
    }
    assert {v: "".join(sorted(n)) for v, n in names.items()} == {
        1: "", 2: "abcd", 3: "acd", 4: "ad", 5: "adef", 6: "ade",
    }  # fmt: skip


def test_deletes_by_value_reach_only_what_was_there_before_them(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    location = with_deletes(table, pa.table({"id": pa.array([1, None], pa.int64())}), {"id": 1})
    catalog.drop_table("ns.t")
    table = catalog.register_table("ns.t", location)
    assert read(location) == [{"id": 2, "name": "名字"}, {"id": 4, "name": None}]
    table.append(pa.table({"id": [1], "name": ["back"]}))
    assert {"id": 1, "name": "back"} in read(table.metadata_location)
    assert len(read(table.metadata_location)) == 3


def test_a_delete_by_a_column_that_was_dropped_since_still_deletes(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    location = with_deletes(table, pa.table({"name": pa.array([None, "a"], pa.string())}), {"name": 2})
    catalog.drop_table("ns.t")
    table = catalog.register_table("ns.t", location)
    with table.update_schema() as update:
        update.delete_column("name")
    with table.update_schema() as update:
        update.add_column("name", LongType())
    assert read(table.metadata_location) == [{"id": 2, "name": None}, {"id": None, "name": None}]


def test_deletes_by_position_are_applied(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    (task,) = table.scan().plan_files()
    gone = pa.table({"file_path": [task.file.file_path] * 2, "pos": pa.array([0, 2], pa.int64())})
    location = with_deletes(table, gone, POSITION_IDS, equality=False)
    assert read(location) == [{"id": 2, "name": "名字"}, {"id": 4, "name": None}]


def test_a_delete_stays_in_its_partition(catalog: SqlCatalog) -> None:
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "name"))
    table = made_table(catalog, spec)
    location = with_deletes(table, pa.table({"id": pa.array([1, 2], pa.int64())}), {"id": 1}, partition=Record("名字"))
    assert [row["id"] for row in read(location)] == [1, 4, None]


def test_columns_are_told_apart_by_id_through_drop_add_rename_and_reorder(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    with table.update_schema() as update:
        update.delete_column("name")
    with table.update_schema() as update:
        update.add_column("name", StringType())
        update.rename_column("id", "number")
        update.move_first("name")
    table.append(pa.table({"name": ["new"], "number": [9]}))
    rows = open_foreign(table.metadata_location, {}).to_arrow()
    assert rows.column_names == ["name", "number"]
    assert sorted(rows.to_pylist(), key=repr) == [
        {"name": "new", "number": 9}, {"name": None, "number": 1}, {"name": None, "number": 2},
        {"name": None, "number": 4}, {"name": None, "number": None},
    ]  # fmt: skip


def test_a_file_without_ids_needs_a_name_mapping(catalog: SqlCatalog, tmp_path: Path) -> None:
    path = tmp_path / "warehouse" / "plain.parquet"
    pq.write_table(ROWS, path)
    table = catalog.create_table("ns.t", SCHEMA)
    table.add_files([f"file://{path}"])
    assert len(read(table.metadata_location)) == 4
    known = document(table)
    known["properties"].pop("schema.name-mapping.default")
    with pytest.raises(BrokenTableError, match=r"plain\.parquet.*field-ids"):
        read(metadata_file(table, known))


def test_a_partition_by_an_unknown_transform_is_read_whole(catalog: SqlCatalog) -> None:
    spec = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "part"))
    table = made_table(catalog, spec)
    known = document(table)
    known["partition-specs"][0]["fields"][0]["transform"] = "zorder[7]"
    assert read(metadata_file(table, known)) == read(table.metadata_location)


def test_a_default_of_a_column_is_the_value_of_older_rows(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    known = document(table)
    known |= {"format-version": 3, "next-row-id": 4}
    known["schemas"][0]["fields"].append(
        {"id": 3, "name": "unit", "type": "string", "required": True, "initial-default": "mm", "write-default": "mm"}
    )
    known["last-column-id"] = 3
    assert {row["unit"] for row in read(metadata_file(table, known))} == {"mm"}


def test_a_missing_a_shortened_and_a_replaced_file_are_named(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    (task,) = table.scan().plan_files()
    path = Path(task.file.file_path.removeprefix("file://"))
    whole = path.read_bytes()
    for content in (whole[:-40], b""):
        path.write_bytes(content)
        with pytest.raises(BrokenTableError, match=path.name):
            read(table.metadata_location)
    pq.write_table(pq.read_table(pa.BufferReader(whole)).slice(1), path)
    with pytest.raises(BrokenTableError, match="its manifest says 4 rows, it has 3"):
        read(table.metadata_location)
    path.unlink()
    with pytest.raises(BrokenTableError, match=path.name):
        read(table.metadata_location)


def test_missing_manifests_and_metadata_are_named(catalog: SqlCatalog, tmp_path: Path) -> None:
    table = made_table(catalog)
    current = table.current_snapshot()
    assert current is not None
    Path(current.manifest_list.removeprefix("file://")).unlink()
    with pytest.raises(BrokenTableError, match=f"snapshot {current.snapshot_id}"):
        read(table.metadata_location)
    for location in (str(tmp_path), str(tmp_path / "00000-x.metadata.json"), str(tmp_path / "nowhere")):
        with pytest.raises(BrokenTableError):
            read(location)


def test_a_table_without_a_snapshot_has_no_rows(catalog: SqlCatalog) -> None:
    table = catalog.create_table("ns.t", SCHEMA)
    rows = open_foreign(table.metadata_location, {}).to_arrow()
    assert (rows.num_rows, rows.column_names) == (0, ["id", "name"])


def test_a_tables_own_properties_choose_no_class_to_read_with(catalog: SqlCatalog) -> None:
    table = made_table(catalog)
    known = document(table)
    known["properties"] |= {"py-io-impl": "tests.lakehouse.nowhere.Stolen", "s3.endpoint": "http://127.0.0.1:1"}
    assert len(read(metadata_file(table, known))) == 4


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"format-version": 4}, "expected format version 1, 2, 3, found 4"),
    ({"format-version": None}, "found None"),
    ({"format-version": 3, "encryption-keys": [{"key-id": "k"}]}, "encrypted"),
    ({"partition-specs": [{"fields": [{"name": "p", "source-ids": [1, 2], "transform": "hash"}]}]}, "several columns"),
    ({"current-snapshot-id": 5, "snapshots": [{"snapshot-id": 5, "manifests": ["m"]}]}, "manifests without a list"),
    *(
        ({"schemas": [{"fields": [{"name": "c", "type": {"type": "list", "element": kind}}]}]}, f"c.element is {kind}")
        for kind in (*UNREADABLE_TYPES, "geometry(OGC:CRS84)")
    ),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_is_not_supported_is_refused_before_anything_is_read(change: dict[str, Any], reason: str) -> None:
    sound = {"format-version": 2, "schemas": [{"fields": [{"name": "c", "type": "long"}]}]}
    check_metadata("t", sound)
    with pytest.raises(UnsupportedTableError) as refused:
        check_metadata("t", sound | change)
    assert reason in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["format-version", "schemas", "snapshots", "partition-specs", "schema"]), JSON))
def test_whatever_a_metadata_file_holds_is_sound_or_refused(changed: dict[str, Any]) -> None:
    with suppress(ForeignTableError):
        check_metadata("t", {"format-version": FORMAT_VERSIONS[0]} | changed)


KEYS = st.lists(st.tuples(st.integers(0, 3) | st.none(), st.sampled_from(["a", "甲", None])), max_size=12)


@given(KEYS, KEYS)
def test_rows_match_keys_as_tuples_do(rows: list[tuple[Any, Any]], keys: list[tuple[Any, Any]]) -> None:
    def made(values: list[tuple[Any, Any]]) -> pa.Table:
        return pa.table(
            {"n": pa.array([n for n, _ in values], pa.int64()), "s": pa.array([s for _, s in values], pa.string())}
        )

    assert matches(made(rows), made(keys)).tolist() == [row in keys for row in rows]
