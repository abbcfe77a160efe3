"""An ingest process over an in-memory log and a real catalog on SQLite with files on disk."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.table import Table

from contracts.contract import Contract
from lakehouse.catalog import open_catalog
from lakehouse.config import CatalogConfig
from lakehouse.handover import DataFileForm
from lakehouse.iceberg import IcebergLake, IcebergTable
from lakehouse.ports import Fault, no_fault
from lakehouse.state import Next, TableState
from tests.lakehouse.frames import CONTRACTS
from tests.lakehouse.memory import Broker, ManualClock
from tests.lakehouse.pair import Pair

USUAL = ("telemetry", "clicks", "quarantine", "decisions")  # of the shipped contracts; a table costs time to create
IDENTITY = ("origin", "epoch", "seq")


def catalogs(folder: Path) -> tuple[CatalogConfig, ...]:
    """Both catalogs in one SQLite file."""
    return tuple(
        CatalogConfig(name, f"sqlite:///{folder}/catalog.db", f"file://{folder}/{name}", "", "", "")
        for name in ("lake_a", "lake_b")
    )


def lose_first_answer(monkeypatch: pytest.MonkeyPatch, table: Table, error: Exception, lands: bool) -> list[int]:
    """Let the next commit of a table end with an error, whether or not it `lands`; the list grows with each call."""
    catalog = table.catalog
    commit, calls = catalog.commit_table, list[int]()

    def losing(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 1:
            if lands:
                commit(*arguments)  # type: ignore[arg-type]
            raise error
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "commit_table", losing)
    return calls


def commit_files(table: IcebergTable, files: tuple[DataFileForm, ...], root: TableState | None = None) -> int:
    """Commit files with a state that says nothing unless one is given."""
    _, location = table.store(Next(root if root is not None else TableState(), None, is_base=False))
    return table.commit(files, location)


class World:
    """A broker with some contracts published, and the processes that a test starts over it."""

    def __init__(self, folder: Path, contracts: tuple[str, ...] = USUAL) -> None:
        self.folder = folder
        self.broker, self.clock = Broker(), ManualClock()
        self.lakes: list[IcebergLake] = []
        self.ingests: list[Pair] = []
        for name in contracts:
            self.broker.publish(CONTRACTS[name])

    def start(self, fault: Fault = no_fault, name: str = "ingest-1") -> Pair:
        """Start a worker in the place of those before; a crash is simply to stop using it."""
        for group in self.broker.groups.values():
            group.clear()
        return self.join(name, fault)

    def join(self, name: str, fault: Fault = no_fault) -> Pair:
        """Start a worker beside those before."""
        lake = IcebergLake(catalogs(self.folder))
        self.lakes.append(lake)
        worker = Pair(self.broker, self.clock, lake, fault, name)
        self.ingests.append(worker)
        return worker

    def drain(self, worker: Pair) -> int:
        """Step until nothing is left; return the number of rounds and commits together."""
        return worker.drain()

    def rows(self, contract: Contract) -> pa.Table:
        """All rows of a contract's table, ordered by identity."""
        config = next(c for c in catalogs(self.folder) if c.name == contract.catalog)
        catalog = open_catalog(config)
        try:
            return catalog.load_table(contract.table).scan().to_arrow().sort_by([(k, "ascending") for k in IDENTITY])
        finally:
            catalog.engine.dispose()

    def records(self, name: str) -> list[dict[str, Any]]:
        """All rows of a contract's table as dictionaries, ordered by identity."""
        found: list[dict[str, Any]] = self.rows(CONTRACTS[name]).to_pylist()
        return found

    def close(self) -> None:
        for ingest in self.ingests:
            ingest.close()
