"""The writer merges its own newest files: few files, every row once, whoever else writes to the table."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException
from pyiceberg.manifest import DataFile

from lakehouse import tail
from lakehouse.catalog import open_catalog
from lakehouse.file_io import SmallFileIO
from lakehouse.iceberg import IcebergLake, IcebergTable
from lakehouse.maintenance.compaction import compact
from lakehouse.schema import iceberg_schema, table_schema
from lakehouse.state import TableState
from lakehouse.tail import COMMITS, FAN_IN, LEVELS, Tail
from tests.lakehouse.frames import CONTRACTS, evolved, telemetry
from tests.lakehouse.world import catalogs, lose_first_answer

TELEMETRY = CONTRACTS["telemetry"]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[IcebergLake]:
    made = IcebergLake(catalogs(tmp_path))
    yield made
    made.close()


@pytest.fixture
def table(lake: IcebergLake) -> IcebergTable:
    made = lake.open(TELEMETRY)
    made.recover()
    return made


def rows(seq: int) -> pa.Table:
    system = {"origin": "d", "epoch": 1, "contract_version": "1.0.0", "sealed_at": 0}
    return pa.Table.from_pylist([system | row for row in telemetry(range(seq, seq + 1))], table_schema(TELEMETRY))


def add(table: IcebergTable, first: int, count: int) -> None:
    for seq in range(first, first + count):
        table.commit(table.write(rows(seq), TableState()))


def stored(table: IcebergTable) -> list[int]:
    table.table.refresh()
    return sorted(table.table.scan().to_arrow().column("seq").to_pylist())


def sizes(table: IcebergTable) -> list[int]:
    table.table.refresh()
    return sorted(task.file.record_count for task in table.table.scan().plan_files())


@given(st.lists(st.integers(1, 50), max_size=200))
def test_every_row_is_in_one_file_and_files_are_few(added: list[int]) -> None:
    kept, files, written = Tail(), dict[str, list[int]](), 0
    for number, count in enumerate(added):
        plan = kept.plan(pa.table({"n": [number] * count}))
        for old in plan.replaces:
            del files[old.file.file_path]
        name = str(number)
        files[name] = pa.concat_tables(plan.rows).column("n").to_pylist()
        written += len(files[name])
        kept.committed(plan, DataFile.from_args(file_path=name), number)
    assert sorted(n for file in files.values() for n in file) == [
        n for n, count in enumerate(added) for _ in range(count)
    ]
    assert len(files) <= len(added) // COMMITS + LEVELS * (FAN_IN - 1)
    assert written <= (LEVELS + 1) * sum(added)


def test_more_than_its_memory_is_left_to_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "BYTES_MAX", 1_000)
    kept = Tail()
    for number in range(FAN_IN):
        plan = kept.plan(pa.table({"n": [number] * 50}))
        assert len(plan.rows) <= 3
        kept.committed(plan, DataFile.from_args(file_path=str(number)), number)


def test_files_stay_few_and_are_sorted_whatever_the_number_of_commits(table: IcebergTable) -> None:
    add(table, 0, FAN_IN)
    assert sizes(table) == [FAN_IN]
    merged = table.table.scan().to_arrow()
    order = [("asset_id", "ascending"), ("occurred_at", "ascending")]
    assert merged.select(["asset_id", "occurred_at"]).equals(merged.sort_by(order).select(["asset_id", "occurred_at"]))
    add(table, FAN_IN, COMMITS - FAN_IN + 3)
    assert sizes(table) == [1, 1, 1, COMMITS]
    assert stored(table) == list(range(COMMITS + 3))


def test_manifests_that_were_merged_are_searched(lake: IcebergLake, table: IcebergTable) -> None:
    with table.table.transaction() as transaction:
        transaction.set_properties({"commit.manifest.min-count-to-merge": "3"})
    add(table, 0, COMMITS + 2)
    assert sizes(table) == [1, 1, COMMITS]
    assert stored(table) == list(range(COMMITS + 2))
    totals = table.table.current_snapshot()
    assert totals is not None
    assert totals.summary is not None
    assert (totals.summary["total-data-files"], totals.summary["total-records"]) == ("3", str(COMMITS + 2))


def test_a_merge_that_meets_another_writer_adds_its_rows_alone(table: IcebergTable, tmp_path: Path) -> None:
    add(table, 0, FAN_IN - 1)
    written = table.write(rows(FAN_IN - 1), TableState())
    other = open_catalog(catalogs(tmp_path)[0])
    assert compact(other.load_table(TELEMETRY.table), quiet=True).files == FAN_IN - 1
    other.engine.dispose()
    table.commit(written)
    assert sizes(table) == [1, FAN_IN - 1]
    add(table, FAN_IN, FAN_IN)
    assert stored(table) == list(range(2 * FAN_IN))


@pytest.mark.parametrize("lands", [True, False])
def test_a_merge_whose_answer_is_lost_is_looked_up(
    table: IcebergTable, monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    add(table, 0, FAN_IN - 1)
    lose_first_answer(monkeypatch, table.table, CommitStateUnknownException("?"), lands)
    add(table, FAN_IN - 1, 1)
    assert stored(table) == list(range(FAN_IN))
    add(table, FAN_IN, FAN_IN)
    assert stored(table) == list(range(2 * FAN_IN))


def test_a_changed_schema_starts_a_tail_of_its_own(table: IcebergTable, lake: IcebergLake) -> None:
    add(table, 0, FAN_IN - 1)
    lake.open(evolved(TELEMETRY))
    table.reload()
    add(table, FAN_IN - 1, 2)
    assert stored(table) == list(range(FAN_IN + 1))
    assert max(sizes(table)) == 1


def test_a_table_that_is_recovered_again_starts_a_tail_of_its_own(table: IcebergTable, tmp_path: Path) -> None:
    add(table, 0, FAN_IN - 1)
    other = open_catalog(catalogs(tmp_path)[0])
    assert compact(other.load_table(TELEMETRY.table), quiet=True).files == FAN_IN - 1
    other.engine.dispose()
    table.recover()
    add(table, FAN_IN - 1, 1)
    assert sizes(table) == [1, FAN_IN - 1]


def test_a_table_that_is_created_in_a_transaction_takes_the_librarys_way(tmp_path: Path) -> None:
    catalog = open_catalog(catalogs(tmp_path)[0])
    catalog.create_namespace("field")
    with catalog.create_table_transaction("field.made", schema=iceberg_schema(TELEMETRY)) as transaction:
        transaction.set_properties({"a": "b"})
    assert catalog.load_table("field.made").properties["a"] == "b"
    catalog.engine.dispose()


def test_who_has_not_seen_the_newest_commit_changes_nothing(table: IcebergTable, tmp_path: Path) -> None:
    add(table, 0, 1)
    other = open_catalog(catalogs(tmp_path)[0])
    behind = other.load_table(TELEMETRY.table)
    add(table, 1, 1)
    with pytest.raises(CommitFailedException, match="moved on by another writer"), behind.transaction() as transaction:
        transaction.set_properties({"a": "b"})
    other.engine.dispose()
    assert stored(table) == [0, 1]
    assert "a" not in table.table.properties


def test_the_length_of_a_written_file_is_known_without_asking(tmp_path: Path) -> None:
    location = f"file://{tmp_path}/file"
    file = SmallFileIO().new_output(location)
    with file.create() as stream:
        stream.write(b"12345")
    (tmp_path / "file").unlink()
    assert len(file) == 5
    (tmp_path / "file").write_bytes(b"123")
    assert len(SmallFileIO().new_output(location)) == 3
