"""One contract's table on a catalog in SQLite, filled without a log; DuckDB says what is in it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
from pyiceberg.table import Table

from contracts.contract import Contract
from lakehouse.catalog import LakeCatalog, open_catalog
from lakehouse.data_files import write_rows
from lakehouse.iceberg import IcebergLake
from lakehouse.schema import table_schema
from lakehouse.state import STATE_PROPERTY, TableState, encode
from lakehouse.tail import Tail, TailAppend
from lakehouse.transactions import LeanTransaction
from tests.lakehouse.frames import CONTRACTS, START_US, clicks
from tests.lakehouse.judge import EXTENSIONS_DIR
from tests.lakehouse.world import catalogs

CLICKS = CONTRACTS["clicks"]


class Shelf:
    """The table of a contract under a folder; `writer` and `keeper` are two views of it, as of two processes."""

    def __init__(self, folder: Path, contract: Contract = CLICKS) -> None:
        self.folder, self.contract = folder, contract
        lake = IcebergLake(catalogs(folder))
        lake.open(contract)
        lake.close()
        self.catalog = self.open_catalog()
        self.writer, self.keeper = self.load(), self.load()
        self._tail: Tail | None = None

    def open_catalog(self) -> LakeCatalog:
        return open_catalog(next(c for c in catalogs(self.folder) if c.name == self.contract.catalog))

    def load(self) -> Table:
        """Another view of the table."""
        return self.catalog.load_table(self.contract.table)

    def commit(self, records: Iterable[Mapping[str, Any]], state: bool = True) -> str:
        """Append records as the newest commit of the writer; return the location of the state it names."""
        rows = table_rows(self.contract, records)
        self.writer.refresh()
        location = f"{self.writer.location()}/metadata/fieldlake-{uuid4()}.state"
        with self.writer.io.new_output(location).create() as stream:
            stream.write(encode(TableState()))
        transaction = LeanTransaction(self.writer)
        append = TailAppend(transaction, self.writer.io, {STATE_PROPERTY: location} if state else {}, self._tail)
        with append:
            for file in write_rows(self.writer, rows, sort=False):
                append.append_data_file(file)
        transaction.commit_transaction()
        self._tail = append.tail()
        return location

    def fill(self, commits: int, rows: int = 12, first: int = 0) -> None:
        """Append clicks, so many commits of so many rows each."""
        for n in range(first, first + commits):
            self.commit(clicks(range(n * rows, (n + 1) * rows)))

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """What DuckDB says of the newest version of the table, which the query calls `rows`."""
        return ask(self.load(), query)

    def seqs(self) -> list[int]:
        """The sequence numbers of all rows, by DuckDB."""
        return [row[0] for row in self.ask("SELECT seq FROM rows ORDER BY seq")]

    def files(self) -> list[tuple[int, str]]:
        """Spec and path of the data files."""
        return sorted((task.file.spec_id, task.file.file_path) for task in self.load().scan().plan_files())

    def on_disk(self) -> list[Path]:
        """All files of the table that exist."""
        root = Path(self.writer.location().removeprefix("file://"))
        return sorted(path for path in root.rglob("*") if path.is_file())

    def close(self) -> None:
        self.catalog.engine.dispose()


def ask(table: Table, query: str) -> list[tuple[Any, ...]]:
    """What DuckDB says of a table with its files on this disk."""
    with duckdb.connect(config={"extension_directory": str(EXTENSIONS_DIR)}) as engine:
        for name in ("avro", "iceberg"):
            engine.execute(f"LOAD {name}")
        engine.execute(f"CREATE VIEW rows AS SELECT * FROM iceberg_scan('{table.metadata_location}')")
        found: list[tuple[Any, ...]] = engine.execute(query).fetchall()
        return found


def table_rows(contract: Contract, records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Records as rows of a contract's table, all of one origin."""
    system = {"origin": "collector-1", "epoch": 1, "contract_version": contract.version, "sealed_at": START_US}
    return pa.Table.from_pylist([system | dict(record) for record in records], schema=table_schema(contract))
