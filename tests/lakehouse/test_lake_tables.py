"""The seam to tables: one behaviour, in memory and in a real catalog with real files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from msgspec.structs import replace
from pyiceberg.exceptions import CommitStateUnknownException
from sqlalchemy.exc import OperationalError

from contracts.ranges import RangeSet
from lakehouse import state
from lakehouse.errors import CommitOutcomeUnknownError, StateMovedError, StoreUnavailableError, TableConflictError
from lakehouse.expiry import EXPIRED_AT_ONCE, SNAPSHOTS_KEPT
from lakehouse.iceberg import IcebergLake
from lakehouse.ports import Lake, LakeTable
from lakehouse.schema import table_schema
from lakehouse.state import Kept, TableState, committed, following
from lakehouse.streams import StreamKey, Streams
from tests.lakehouse.frames import CONTRACTS, evolved, telemetry
from tests.lakehouse.memory_lake import Disk, MemoryLake
from tests.lakehouse.world import catalogs, lose_first_answer

TELEMETRY = CONTRACTS["telemetry"]
KEY = StreamKey("telemetry", "d", 1)
ROOT = TableState(((KEY, ((0, 5), (7, 2**62))),), {"t/0": 3}, {"h/0": 9}, {"t": "id"}, (), (b"\x00" * 16,))

Opener = Callable[[], Lake]


@pytest.fixture(params=["memory", "iceberg"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same lake anew, as another process would."""
    disk, opened = Disk(), list[Lake]()

    def one() -> Lake:
        opened.append(MemoryLake(disk) if request.param == "memory" else IcebergLake(catalogs(tmp_path)))
        return opened[-1]

    yield one
    for lake in opened:
        lake.close()


def rows(first: int, end: int) -> pa.Table:
    system = {"origin": "d", "epoch": 1, "contract_version": "1.0.0", "sealed_at": 0}
    return pa.Table.from_pylist([system | row for row in telemetry(range(first, end))], table_schema(TELEMETRY))


def commit(table: LakeTable, found: pa.Table | None, root: TableState = ROOT, before: Kept | None = None) -> int:
    """Commit as a committer does, with what the table object has recovered or committed last."""
    files = () if found is None else table.write(found)
    _, location = table.store(following(before if before is not None else EMPTY, root))
    return table.commit(files, location)


EMPTY = Kept(TableState(), None, Streams())


def test_a_new_table_has_no_state(opener: Opener) -> None:
    recovered = opener().open(TELEMETRY).recover()
    assert (recovered.kept.root, recovered.kept.location, recovered.snapshot_id) == (TableState(), None, None)
    assert not recovered.kept.streams


@pytest.mark.parametrize("with_rows", [True, False])
def test_what_is_committed_is_recovered(opener: Opener, with_rows: bool) -> None:
    table = opener().open(TELEMETRY)
    table.recover()
    snapshot_id = commit(table, rows(0, 5) if with_rows else None)
    recovered = opener().open(TELEMETRY).recover()
    assert (recovered.kept.root, recovered.snapshot_id) == (ROOT, snapshot_id)
    assert dict(recovered.kept.streams) == dict(ROOT.changed)


def test_a_state_of_many_commits_is_found_whole_in_few_files(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "ROOTS_MAX", 3)
    monkeypatch.setattr(state, "CHANGED_MIN", 6)
    table = opener().open(TELEMETRY)
    kept, wanted = table.recover().kept, dict[StreamKey, RangeSet]()
    rng = Random(1)
    for number in range(60):
        keys = [StreamKey("telemetry", f"d{rng.randrange(40)}", rng.randrange(2)) for _ in range(rng.randint(0, 3))]
        changed: dict[StreamKey, RangeSet] = dict.fromkeys(keys, ((0, number + 1),))
        wanted |= changed
        made, location = table.store(following(kept, TableState(tuple(changed.items()))))
        table.commit((), location)
        kept = committed(kept, made, location)
        assert dict(kept.streams) == wanted
        found = opener().open(TELEMETRY).recover().kept
        assert (found.root, dict(found.streams)) == (made.root, wanted)
        assert len(found.root.roots) <= 3
        assert len(found.root.parts) <= 2


def test_a_commit_repeated_is_the_same_commit(opener: Opener) -> None:
    table = opener().open(TELEMETRY)
    table.recover()
    files, (_, location) = table.write(rows(0, 5)), table.store(following(EMPTY, ROOT))
    assert table.commit(files, location) == table.commit(files, location)


def test_files_that_were_never_committed_change_nothing(opener: Opener) -> None:
    table = opener().open(TELEMETRY)
    table.write(rows(0, 5))
    table.store(following(EMPTY, ROOT))
    assert opener().open(TELEMETRY).recover().snapshot_id is None


def test_only_who_knows_the_newest_state_may_commit(opener: Opener) -> None:
    one, other = opener().open(TELEMETRY), opener().open(TELEMETRY)
    one.recover()
    other.recover()
    commit(one, rows(0, 5))
    with pytest.raises(StateMovedError):
        commit(other, rows(0, 5))
    other.recover()
    commit(other, rows(5, 9))
    with pytest.raises(StateMovedError):
        commit(one, None)


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("error", [CommitStateUnknownException("?"), OperationalError("?", None, OSError("gone"))])
def test_a_lost_answer_is_looked_up_and_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lands: bool, error: Exception
) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()
    calls = lose_first_answer(monkeypatch, table.table, error, lands)
    snapshot_id = commit(table, rows(0, 5))
    assert len(calls) == (1 if lands else 2)
    table.table.refresh()
    assert [s.snapshot_id for s in table.table.snapshots()] == [snapshot_id]
    assert table.table.scan().to_arrow().num_rows == 5
    lake.close()


def test_a_catalog_that_stays_silent_is_an_unknown_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()

    def silent(*_arguments: object) -> object:
        raise OSError("no route")

    monkeypatch.setattr(table.table.catalog, "commit_table", silent)
    with pytest.raises(CommitOutcomeUnknownError, match="commit to field"):
        commit(table, rows(0, 5))
    lake.close()


def test_a_newer_version_adds_its_columns_and_drops_others(tmp_path: Path) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()
    commit(table, rows(0, 2))
    table = lake.open(evolved(TELEMETRY, drop="f9"))
    table.recover()
    commit(table, rows(2, 4).drop_columns("f9"))
    found = table.table.scan().to_arrow()
    assert found.num_rows == 4
    assert found.column("humidity").null_count == 4
    assert "f9" not in found.column_names
    lake.close()


def test_a_contract_for_an_unconfigured_catalog_names_the_configured_ones(tmp_path: Path) -> None:
    lake = IcebergLake(catalogs(tmp_path)[1:])
    with pytest.raises(TableConflictError, match="configured are lake_b"):
        lake.open(TELEMETRY)
    lake.close()


def test_the_number_of_snapshots_stays_within_bounds(tmp_path: Path) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()
    kept = []
    for n in range(35):
        commit(table, rows(n, n + 1) if n % 2 else None)
        kept.append(len(table.table.snapshots()))
    assert (max(kept), min(kept[20:])) == (SNAPSHOTS_KEPT + EXPIRED_AT_ONCE - 1, SNAPSHOTS_KEPT)
    assert table.table.scan().to_arrow().num_rows == 17
    lake.close()


def test_a_database_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    (config,) = catalogs(tmp_path)[:1]
    nowhere = replace(config, uri="postgresql+psycopg2://nobody@127.0.0.1:1/lake")
    lake = IcebergLake((nowhere,))
    with pytest.raises(StoreUnavailableError, match="catalog lake_a: expected an answer"):
        lake.open(TELEMETRY)
    lake.close()
