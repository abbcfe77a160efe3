"""The quality process: look at what was committed, ask, publish, remember, write the pages; again and again.

It takes no lock and changes no table: it reads the catalog's pointers with one statement a pass, opens only tables that
have moved, and reads a bounded sample of their new rows.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import psutil
import pyarrow as pa
from msgspec.structs import replace
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from contracts.contract import Contract
from contracts.errors import ContractError
from contracts.ports import Clock
from lakehouse.errors import EngineError, LogUnavailableError
from lakehouse.iceberg import UNKNOWN
from lakehouse.ports import Follower, Message
from lakehouse.quality import memory as remembered
from lakehouse.quality import report
from lakehouse.quality.analyst import Shelf
from lakehouse.quality.config import QualityConfig
from lakehouse.quality.expectations import Expectation, Outcome, of_contract
from lakehouse.quality.memory import Memory, TableMemory
from lakehouse.quality.reading import Committed, committed_since
from lakehouse.quality.results import ORIGIN, TABLE, Look, batches, discreet, rows
from lakehouse.quality.whole import Statement, evaluate, statements
from lakehouse.registry import Registry
from lakehouse.status import QualityStatus
from lakehouse.tables import CONTRACT_PROPERTY

BUSY_SHARE_MAX: Final = 0.25  # of the time; asking is slow, and who commits and who queries comes first
APART_MAX_S: Final = 60.0  # seconds between two passes, however long one takes
MEBIBYTE: Final = 1_048_576

_log = logging.getLogger(__name__)


class Judging(Protocol):
    """Asks rows what is expected of them."""

    def judge(self, rows: pa.Table, expected: Sequence[Expectation]) -> tuple[Outcome, ...]:
        """Return what came of it, in order."""
        ...


class Asking(Protocol):
    """Asks the SQL engine."""

    def row(self, sql: str) -> Sequence[Any]:
        """Return the single row of an answer. Raises EngineError."""
        ...


class Watcher:
    """`run` until stopped. `send` publishes (origin, batch) pairs and returns when the log holds them."""

    def __init__(
        self,
        config: QualityConfig,
        catalogs: Sequence[SqlCatalog],
        contracts: Follower,
        send: Callable[[Sequence[tuple[str, bytes]]], object],
        judge: Judging,
        engine: Asking | None,
        clock: Clock,
        status: QualityStatus,
        memory_file: Path,
    ) -> None:
        self._config, self._catalogs, self._contracts, self._send = config, catalogs, contracts, send
        self._judge, self._engine, self._clock, self._status = judge, engine, clock, status
        self._file = memory_file
        self._memory = _recall(memory_file)
        self._shelf = Shelf(Path(config.expectations_dir), self._memory.good)
        self._registry = Registry()
        self._pointers: dict[str, str] = {}
        self._following = False
        self._epoch, self._seq = clock.now_ms() // 1_000, 0
        self._process = psutil.Process(os.getpid())

    def run(self, stop: threading.Event, ready: threading.Event) -> None:
        """Pass until stopped. Trouble with one table, the log or the engine is noted and does not end it."""
        while not stop.is_set():
            began_s = self._clock.monotonic_s()
            try:
                self.step(stop)
                self._status.ready = True
                ready.set()
            except (LogUnavailableError, *UNKNOWN) as error:
                self._note(f"{error}: trying again")
            took_s = self._clock.monotonic_s() - began_s
            self._status.last_pass_ms = took_s * 1_000
            self._status.memory_mb = round(self._process.memory_info().rss / MEBIBYTE, 1)
            stop.wait(max(self._config.look_interval_ms / 1_000 - took_s, min(APART_MAX_S, took_s / BUSY_SHARE_MAX)))

    def step(self, stop: threading.Event) -> None:
        """One pass. Raises LogUnavailableError; nothing is remembered then, and the pass is repeated."""
        self._follow()
        self._follow_files()
        before, pointers = self._memory, dict(self._pointers)
        try:
            looks = [*self._looks_at_committed(stop), *self._look_at_whole(stop)]
            self._publish(looks)
        except (LogUnavailableError, *UNKNOWN):
            self._memory, self._pointers = before, pointers
            raise
        self._memory = replace(self._memory, good=dict(self._shelf.good))
        if self._memory != before:
            _write(self._file, remembered.encode(self._memory))
        self._write_pages()

    # What is in force.

    def _follow(self) -> None:
        if not self._following:
            self._contracts.rewind({})
            self._following = True
        for message in self._contracts.catch_up():
            self._take(message)

    def _take(self, message: Message) -> None:
        try:
            self._registry.take((message.key or b"").decode("utf-8", "replace"), message.value)
        except ContractError as error:
            self._note(str(error))

    def _follow_files(self) -> None:
        for name, why in self._shelf.look(self._registry.newest).items():
            in_force = "its last good version stays in force" if name in self._shelf.good else "none of it is in force"
            self._note(f"expectations {name}: {why}: correct the file; {in_force}")
        self._status.broken_files = dict(self._shelf.broken)

    def _expected(self, contract: Contract) -> tuple[Expectation, ...]:
        return (*of_contract(contract, self._registry.newest), *self._shelf.expected(contract.id))

    # Looks.

    def _looks_at_committed(self, stop: threading.Event) -> Iterator[Look]:
        for name, table in self._moved():
            if stop.is_set():
                return
            contract = self._registry.newest.get(table.properties[CONTRACT_PROPERTY])
            if contract is None or contract.id == TABLE:  # results about results would never end
                continue
            known = self._memory.tables.get(name, TableMemory(contract.id))
            try:
                found = committed_since(table, known.sequence, self._config.sample_rows_max)
            except UNKNOWN as error:
                self._pointers.pop(name, None)
                self._note(f"table {name}: {error}: check that the store runs; trying again")
                continue
            if found is not None:
                yield self._noted(self._committed(name, contract, found), contract, found.sequence)

    def _committed(self, name: str, contract: Contract, found: Committed) -> Look:
        outcomes = self._judge.judge(found.sample, self._expected(contract))
        now_ms = self._clock.now_ms()
        return Look(
            name, contract.id, contract.version, "committed", now_ms, found.snapshot_id, found.rows_committed,
            found.sample.num_rows, outcomes,
        )  # fmt: skip

    def _look_at_whole(self, stop: threading.Event) -> Iterator[Look]:
        """At most one table a pass, the one that has waited longest."""
        now_ms = self._clock.now_ms()
        tables = self._memory.tables
        due = [name for name in tables if now_ms - tables[name].whole_at_ms >= self._config.whole_interval_s * 1_000]
        if self._engine is None or not due or stop.is_set():
            return
        name = min(due, key=lambda one: tables[one].whole_at_ms)
        contract = self._registry.newest.get(tables[name].contract)
        if contract is None:
            return
        try:
            outcomes = self._ask_whole(self._engine, name, contract)
        except EngineError as error:
            self._note(f"table {name}: {error}")
            self._remember(name, replace(tables[name], whole_at_ms=now_ms - self._config.whole_interval_s * 500))
            return
        total = max((one.rows for one in outcomes), default=0)
        yield self._noted(
            Look(name, contract.id, contract.version, "whole", now_ms, None, total, total, outcomes), contract, None
        )

    def _ask_whole(self, engine: Asking, name: str, contract: Contract) -> tuple[Outcome, ...]:
        """A question that fails alone is a finding; when none is answered, the engine is away."""
        found: list[Outcome] = []
        failures: list[EngineError] = []
        asked = statements(name, self._expected(contract))
        for statement in asked:
            try:
                found += evaluate(statement, engine.row(statement.sql))
            except EngineError as error:
                failures.append(error)
                found += _unasked(statement, error)
        if len(failures) == len(asked):
            raise failures[0]
        return tuple(found)

    def _noted(self, look: Look, contract: Contract, sequence: int | None) -> Look:
        look = discreet(look, contract)
        before = self._memory.tables.get(look.table, TableMemory(contract.id))
        after = remembered.after(before, look)
        self._remember(look.table, after if sequence is None else replace(after, sequence=sequence))
        self._count(look)
        return look

    def _remember(self, name: str, table: TableMemory) -> None:
        self._memory = replace(self._memory, tables={**self._memory.tables, name: table})

    def _moved(self) -> Iterator[tuple[str, Table]]:
        """Tables of ours whose pointer is another than in the last pass."""
        for catalog in self._catalogs:
            for namespace, name, pointer in _pointers(catalog):
                full = f"{catalog.name}.{namespace}.{name}"
                if self._pointers.get(full) == pointer:
                    continue
                try:
                    table = catalog.load_table((*namespace.split("."), name))
                except NoSuchTableError:
                    continue  # dropped since it was listed
                if (
                    CONTRACT_PROPERTY in table.properties
                    and table.properties[CONTRACT_PROPERTY] in self._registry.newest
                ):
                    yield full, table
                self._pointers[full] = pointer

    # What comes of it.

    def _publish(self, looks: Sequence[Look]) -> None:
        contract = self._registry.newest.get(TABLE)
        found = rows(looks)
        if contract is None or not found:
            if found:
                self._note(f"contract {TABLE} is not published: results are on the pages only; publish it")
            return
        sealed = batches(found, contract, self._epoch, self._seq, self._clock.now_ms())
        self._send([(ORIGIN, batch) for batch in sealed])
        self._seq += len(found)

    def _count(self, look: Look) -> None:
        status = self._status
        if look.scope == "whole":
            status.whole_looks += 1
        else:
            status.looks += 1
            status.rows_committed += look.rows_committed
            status.rows_checked += look.rows_checked
        status.not_met = {**status.not_met, look.table: tuple(one.expectation.rule for one in look.wrong)}
        for one in look.wrong:
            found = one.error or f"{one.failed} of {one.rows} rows fail"
            _log.warning("table %s (%s): %s: %s", look.table, look.scope, one.expectation.text, found)

    def _write_pages(self) -> None:
        folder, now_ms = Path(self._config.report_dir), self._clock.now_ms()
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self._memory.tables.items():
            contract = self._registry.newest.get(table.contract)
            expected = self._expected(contract) if contract is not None else ()
            page = report.table_page(name, table, expected, self._shelf.broken, now_ms)
            _write(folder / f"{name}.html", page.encode())
        _write(folder / "index.html", report.index_page(self._memory.tables, self._shelf.broken, now_ms).encode())

    def _note(self, text: str) -> None:
        _log.error("%s", text)
        self._status.last_error = text
        self._status.last_error_at_ms = self._clock.now_ms()


def _unasked(statement: Statement, error: EngineError) -> list[Outcome]:
    return [Outcome(one, 0, 0, False, error=str(error)) for one in statement.answers]


def _pointers(catalog: SqlCatalog) -> list[tuple[str, str, str]]:
    columns = (IcebergTables.table_namespace, IcebergTables.table_name, IcebergTables.metadata_location)
    with Session(catalog.engine) as session:
        found = session.execute(select(*columns).where(IcebergTables.catalog_name == catalog.name)).all()
    return [(namespace, name, pointer or "") for namespace, name, pointer in found]


def _recall(path: Path) -> Memory:
    """A file that is missing or not ours to read costs a second look at what was looked at before, no more."""
    try:
        return remembered.decode(path.read_bytes())
    except FileNotFoundError:
        return Memory()
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("%s: cannot be read: %s: starting from what the tables hold now", path, error)
        return Memory()


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(data)
    os.replace(partial, path)
