"""Tables in memory behind the `Lake` port, with the compare-and-set of a real catalog and faults drawn from a seed."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from itertools import count
from random import Random
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from contracts.contract import Contract
from lakehouse import state, streams
from lakehouse.errors import CommitConflictError, CommitOutcomeUnknownError, StateMovedError, StoreUnavailableError
from lakehouse.handover import DataFileForm
from lakehouse.ports import LakeTable, Recovered
from lakehouse.state import Kept, Next, TableState, assembled
from lakehouse.streams import Streams


class Inline(Executor):
    """Does what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future's own way
            done.set_exception(error)
        return done


class Disk:
    """What survives every process: per contract the commits in their order, and the files by name."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, int, tuple[str, ...]]]] = {}
        self.states: dict[str, bytes] = {}
        self.tables: dict[str, pa.Table] = {}
        self.down: set[str] = set()  # catalogs whose store does not answer
        self.lock = threading.Lock()
        self.numbers = count(1)

    def rows(self, contract: str) -> list[dict[str, Any]]:
        """All rows of a table in the order of their commits."""
        paths = [path for _, _, files in self.commits.get(contract, []) for path in files]
        return [row for path in paths for row in self.tables[path].to_pylist()]


class MemoryLake:
    """One process's view. `rng` None: no faults."""

    def __init__(self, disk: Disk, rng: Random | None = None, fault_share: float = 0.05) -> None:
        self._disk, self._rng, self._share = disk, rng, fault_share

    def open(self, contract: Contract) -> LakeTable:
        self.need(contract.catalog)
        with self._disk.lock:
            self._disk.commits.setdefault(contract.id, [])
        return _MemoryTable(self, contract)

    def close(self) -> None:
        """Nothing to release."""

    @property
    def disk(self) -> Disk:
        return self._disk

    def need(self, catalog: str) -> None:
        if catalog in self._disk.down:
            raise StoreUnavailableError(f"{catalog}: does not answer")
        if self.strikes():
            raise StoreUnavailableError("the seed says so")

    def strikes(self) -> bool:
        with self._disk.lock:
            return self._rng is not None and self._rng.random() < self._share


class _MemoryTable:
    def __init__(self, lake: MemoryLake, contract: Contract) -> None:
        self._lake, self._disk, self._contract, self._catalog = lake, lake.disk, contract.id, contract.catalog
        self._at: str | None = None

    @property
    def layout(self) -> None:
        """Rows are kept as they come."""

    def recover(self) -> Recovered:
        self._lake.need(self._catalog)
        commits = self._disk.commits[self._contract]
        if not commits:
            self._at = None
            return Recovered(Kept(TableState(), None, Streams()), None)
        self._at, snapshot_id, _ = commits[-1]
        root = state.decode(self._disk.states[self._at], self._at)
        parts = [streams.decode(self._disk.states[part], part) for part in root.parts]
        roots = [state.decode(self._disk.states[one], one) for one in root.roots]
        return Recovered(assembled(root, self._at, parts, roots), snapshot_id)

    def write(self, rows: pa.Table) -> tuple[DataFileForm, ...]:
        self._lake.need(self._catalog)
        path = f"{self._contract}/{next(self._disk.numbers)}.parquet"
        self._disk.tables[path] = rows
        return (DataFileForm(path, len(rows), rows.nbytes),)

    def store(self, state_: Next) -> tuple[Next, str]:
        self._lake.need(self._catalog)
        if state_.part is not None:
            part = self._put(streams.encode(state_.part))
            state_ = replace(state_, root=replace(state_.root, parts=(*state_.root.parts, part)))
        return state_, self._put(state.encode(state_.root))

    def commit(self, files: Sequence[DataFileForm], location: str) -> int:
        self._lake.need(self._catalog)
        if self._lake.strikes():
            raise CommitConflictError("the seed says so")
        lost = self._lake.strikes()
        with self._disk.lock:
            commits = self._disk.commits[self._contract]
            newest, snapshot_id = commits[-1][:2] if commits else (None, 0)
            if newest != location:
                if newest != self._at:
                    raise StateMovedError(f"table {self._contract}: another committer serves it")
                snapshot_id = next(self._disk.numbers)
                commits.append((location, snapshot_id, tuple(file.path for file in files)))
            self._at = location
        if lost:
            raise CommitOutcomeUnknownError("the seed says so")
        return snapshot_id

    def _put(self, data: bytes) -> str:
        location = f"{self._contract}/{next(self._disk.numbers)}.state"
        self._disk.states[location] = data
        return location
