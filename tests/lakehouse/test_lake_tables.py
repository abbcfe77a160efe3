"""The seam to tables: one behaviour, in memory and in a real catalog with real files."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitStateUnknownException
from sqlalchemy.exc import OperationalError

from lakehouse.errors import CommitOutcomeUnknownError, FencedError, TableConflictError
from lakehouse.expiry import EXPIRED_AT_ONCE, SNAPSHOTS_KEPT
from lakehouse.iceberg import IcebergLake
from lakehouse.ports import Lake
from lakehouse.schema import table_schema
from lakehouse.state import StreamKey, TableState
from tests.lakehouse.frames import CONTRACTS, evolved, telemetry
from tests.lakehouse.memory_lake import Disk, MemoryLake
from tests.lakehouse.world import catalogs, lose_first_answer

TELEMETRY = CONTRACTS["telemetry"]
STATE = TableState(
    {"t/0": 3}, {"t/0": 9}, {"t": "id"}, ((StreamKey("telemetry", "d", 1), ((0, 5), (7, 2**62))),), (b"\x00" * 16,)
)

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


def test_a_new_table_has_no_state(opener: Opener) -> None:
    recovered = opener().open(TELEMETRY).recover()
    assert (recovered.state, recovered.snapshot_id) == (TableState(), None)


@pytest.mark.parametrize("with_rows", [True, False])
def test_what_is_committed_is_recovered(opener: Opener, with_rows: bool) -> None:
    table = opener().open(TELEMETRY)
    table.recover()
    snapshot_id = table.commit(table.write(rows(0, 5) if with_rows else None, STATE))
    recovered = opener().open(TELEMETRY).recover()
    assert (recovered.state, recovered.snapshot_id) == (STATE, snapshot_id)


def test_a_commit_repeated_is_the_same_commit(opener: Opener) -> None:
    table = opener().open(TELEMETRY)
    table.recover()
    written = table.write(rows(0, 5), STATE)
    assert table.commit(written) == table.commit(written)


def test_files_that_were_never_committed_change_nothing(opener: Opener) -> None:
    opener().open(TELEMETRY).write(rows(0, 5), STATE)
    assert opener().open(TELEMETRY).recover().snapshot_id is None


def test_only_who_knows_the_newest_state_may_commit(opener: Opener) -> None:
    one, other = opener().open(TELEMETRY), opener().open(TELEMETRY)
    one.recover()
    other.recover()
    one.commit(one.write(rows(0, 5), STATE))
    with pytest.raises(FencedError):
        other.commit(other.write(rows(0, 5), STATE))
    other.recover()
    other.commit(other.write(rows(5, 9), STATE))
    with pytest.raises(FencedError):
        one.commit(one.write(None, STATE))


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("error", [CommitStateUnknownException("?"), OperationalError("?", None, OSError("gone"))])
def test_a_lost_answer_is_looked_up_and_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lands: bool, error: Exception
) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()
    calls = lose_first_answer(monkeypatch, table.table, error, lands)
    snapshot_id = table.commit(table.write(rows(0, 5), STATE))
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
        table.commit(table.write(rows(0, 5), STATE))
    lake.close()


def test_a_newer_version_adds_its_columns_and_drops_others(tmp_path: Path) -> None:
    lake = IcebergLake(catalogs(tmp_path))
    table = lake.open(TELEMETRY)
    table.recover()
    table.commit(table.write(rows(0, 2), STATE))
    lake.open(evolved(TELEMETRY, drop="f9"))
    table.reload()
    table.commit(table.write(rows(2, 4).drop_columns("f9"), STATE))
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
        table.commit(table.write(rows(n, n + 1) if n % 2 else None, STATE))
        kept.append(len(table.table.snapshots()))
    assert (max(kept), min(kept[20:])) == (SNAPSHOTS_KEPT + EXPIRED_AT_ONCE - 1, SNAPSHOTS_KEPT)
    assert table.table.scan().to_arrow().num_rows == 17
    lake.close()
