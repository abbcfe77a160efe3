"""Appends that share a manifest: what the library would have written, in fewer manifests, whoever else commits."""

import random
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import pytest
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.types import StringType

from lakehouse.config import CatalogConfig
from lakehouse.data_files import write_rows
from lakehouse.history import ensure_history
from lakehouse.iceberg import IcebergLake, IcebergTable
from lakehouse.maintenance.compaction import compact
from lakehouse.tail import TAIL_FILES_MAX
from lakehouse.transactions import LeanTransaction
from tests.lakehouse.frames import CONTRACTS, clicks
from tests.lakehouse.shelf import ask, table_rows
from tests.lakehouse.world import catalogs, commit_files, lose_first_answer

CLICKS = CONTRACTS["clicks"]
ROWS = 5
RUNS = 6  # seeds of the random runs
ACTS = 40  # of a random run


@pytest.fixture
def lakes(tmp_path: Path) -> Iterator[tuple[IcebergLake, IcebergLake]]:
    """Two tables of the same contract, apart from each other."""
    made = [IcebergLake(_catalogs(tmp_path / name)) for name in ("one", "other")]
    yield made[0], made[1]
    for lake in made:
        lake.close()


def _catalogs(folder: Path) -> tuple[CatalogConfig, ...]:
    folder.mkdir()
    return catalogs(folder)


def opened(lake: IcebergLake) -> IcebergTable:
    table = lake.open(CLICKS)
    table.recover()
    return table


def append(table: IcebergTable, number: int) -> int:
    rows = table_rows(CLICKS, clicks(range(number * ROWS, (number + 1) * ROWS)))
    return commit_files(table, table.write(rows))


def entries(table: Table) -> list[tuple[int, int | None, int | None]]:
    """Rows, sequence number and snapshot of every live file, in the order of commits."""
    table.refresh()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    found = [
        (entry.data_file.record_count, entry.sequence_number, entry.snapshot_id)
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    ]
    return sorted(found, key=lambda entry: entry[1] or 0)


def seqs(table: IcebergTable) -> list[int]:
    return [row[0] for row in ask(table.table.refresh(), "SELECT seq FROM rows ORDER BY seq")]


def manifests(table: IcebergTable) -> int:
    snapshot = table.table.refresh().current_snapshot()
    assert snapshot is not None
    return len(snapshot.manifests(table.table.io))


def by_library(table: Table, number: int) -> None:
    """Append as the library does, a manifest for each commit."""
    rows = table_rows(CLICKS, clicks(range(number * ROWS, (number + 1) * ROWS)))
    transaction = LeanTransaction(table.refresh())
    with transaction.update_snapshot().fast_append() as append:
        for file in write_rows(table, rows):
            append.append_data_file(file)
    transaction.commit_transaction()


def test_commits_share_manifests_and_every_file_keeps_its_commit(lakes: tuple[IcebergLake, IcebergLake]) -> None:
    table = opened(lakes[0])
    commits = 2 * TAIL_FILES_MAX + 3
    ids = [append(table, number) for number in range(commits)]
    assert manifests(table) == ceil(commits / TAIL_FILES_MAX)
    assert [entry[1:3] for entry in entries(table.table)] == list(zip(range(1, commits + 1), ids, strict=True))
    assert seqs(table) == list(range(commits * ROWS))


def test_only_the_files_of_a_commit_are_added_by_it(lakes: tuple[IcebergLake, IcebergLake]) -> None:
    table = opened(lakes[0])
    for number in range(4):
        newest = append(table, number)
    snapshot = table.table.current_snapshot()
    assert snapshot is not None
    assert snapshot.summary is not None
    assert (snapshot.summary["added-data-files"], snapshot.summary["total-data-files"]) == ("1", "4")
    (manifest,) = snapshot.manifests(table.table.io)
    assert (manifest.added_files_count, manifest.existing_files_count, manifest.added_rows_count) == (1, 3, ROWS)
    assert (manifest.min_sequence_number, manifest.sequence_number) == (1, 4)
    found = manifest.fetch_manifest_entry(table.table.io)
    assert [entry.snapshot_id for entry in found if entry.status == ManifestEntryStatus.ADDED] == [newest]


def test_a_list_that_is_remembered_is_the_one_that_was_written(lakes: tuple[IcebergLake, IcebergLake]) -> None:
    """One table is committed to by one writer, the other by another one each time, which must read what is there."""
    one, other = opened(lakes[0]), opened(lakes[1])
    for number in range(TAIL_FILES_MAX + 2):
        append(one, number)
        append(other, number)
        other = opened(lakes[1])
    assert manifests(one) == 2
    assert manifests(other) == TAIL_FILES_MAX + 2
    assert [entry[:2] for entry in entries(one.table)] == [entry[:2] for entry in entries(other.table)]
    assert seqs(one) == seqs(other)


def test_a_commit_without_files_keeps_what_is_shared(lakes: tuple[IcebergLake, IcebergLake]) -> None:
    table = opened(lakes[0])
    append(table, 0)
    commit_files(table, ())
    append(table, 1)
    assert manifests(table) == 1
    assert seqs(table) == list(range(2 * ROWS))


@pytest.mark.parametrize("lands", [True, False])
def test_after_a_lost_answer_no_file_is_there_twice(
    lakes: tuple[IcebergLake, IcebergLake], monkeypatch: pytest.MonkeyPatch, lands: bool
) -> None:
    table = opened(lakes[0])
    append(table, 0)
    lose_first_answer(monkeypatch, table.table, CommitStateUnknownException("?"), lands)
    for number in range(1, 4):
        append(table, number)
    assert len(entries(table.table)) == 4
    assert seqs(table) == list(range(4 * ROWS))


@pytest.mark.parametrize("seed", range(RUNS))
def test_whoever_else_commits_every_row_is_there_once(lakes: tuple[IcebergLake, IcebergLake], seed: int) -> None:
    random_ = random.Random(seed)
    table = opened(lakes[0])
    keeper = lakes[0].open(CLICKS).table
    rows = 0
    for _ in range(ACTS):
        match random_.choice(("append", "append", "append", "merge", "other", "widen", "begin")):
            case "append":
                append(table, rows)
                rows += 1
            case "merge" if rows:
                keeper.refresh()
                ensure_history(keeper)
                compact(keeper, quiet=random_.random() < 0.5)
            case "other":
                by_library(keeper, rows)
                rows += 1
            case "widen":
                _add_column(keeper.refresh())
            case _:
                table = opened(lakes[0])
        live = sum(entry[0] for entry in entries(table.table)) if rows else 0
        assert live == rows * ROWS, f"seed {seed}"
    assert seqs(table) == list(range(rows * ROWS)), f"seed {seed}"


def _add_column(table: Table) -> None:
    transaction = LeanTransaction(table)
    with transaction.update_schema() as update:
        update.add_column(f"more_{len(table.schema().fields)}", StringType())
    transaction.commit_transaction()
