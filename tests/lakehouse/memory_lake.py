"""Tables in memory behind the `Lake` port, with the compare-and-set of a real catalog and faults drawn from a seed."""

import threading
from itertools import count
from random import Random
from typing import Any

import pyarrow as pa

from contracts.contract import Contract
from lakehouse import state
from lakehouse.errors import CommitConflictError, CommitOutcomeUnknownError, FencedError, StoreUnavailableError
from lakehouse.ports import LakeTable, Recovered, Written
from lakehouse.state import TableState


class Disk:
    """What survives every process: per contract the commits in their order, and the files by name."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, int]]] = {}
        self.files: dict[str, tuple[bytes, pa.Table | None]] = {}
        self.lock = threading.Lock()
        self.numbers = count(1)

    def rows(self, contract: str) -> list[dict[str, Any]]:
        """All rows of a table in the order of their commits."""
        found = [self.files[location][1] for location, _ in self.commits.get(contract, [])]
        return [row for table in found if table is not None for row in table.to_pylist()]


class MemoryLake:
    """One process's view. `rng` None: no faults."""

    def __init__(self, disk: Disk, rng: Random | None = None, fault_share: float = 0.05) -> None:
        self._disk, self._rng, self._share = disk, rng, fault_share

    def open(self, contract: Contract) -> LakeTable:
        with self._disk.lock:
            self._disk.commits.setdefault(contract.id, [])
        return _MemoryTable(self, contract.id)

    def close(self) -> None:
        """Nothing to release."""

    @property
    def disk(self) -> Disk:
        return self._disk

    def strikes(self) -> bool:
        with self._disk.lock:
            return self._rng is not None and self._rng.random() < self._share


class _MemoryTable:
    def __init__(self, lake: MemoryLake, contract: str) -> None:
        self._lake, self._disk, self._contract = lake, lake.disk, contract
        self._at: str | None = None

    @property
    def layout(self) -> None:
        """Rows are kept as they come."""

    def recover(self) -> Recovered:
        if self._lake.strikes():
            raise StoreUnavailableError("the seed says so")
        commits = self._disk.commits[self._contract]
        if not commits:
            self._at = None
            return Recovered(TableState(), None)
        self._at, snapshot_id = commits[-1]
        return Recovered(state.decode(self._disk.files[self._at][0], self._at), snapshot_id)

    def reload(self) -> None:
        """A schema is nothing here."""

    def write(self, rows: pa.Table | None, table_state: TableState) -> Written:
        if self._lake.strikes():
            raise StoreUnavailableError("the seed says so")
        location = f"{self._contract}/{next(self._disk.numbers)}"
        self._disk.files[location] = (state.encode(table_state), rows)
        return Written(location, (), 0.0)

    def commit(self, written: Written) -> int:
        if self._lake.strikes():
            raise CommitConflictError("the seed says so")
        lost = self._lake.strikes()
        with self._disk.lock:
            commits = self._disk.commits[self._contract]
            newest, snapshot_id = commits[-1] if commits else (None, 0)
            if newest != written.state_location:
                if newest != self._at:
                    raise FencedError(f"table {self._contract}: another ingest process writes here; stop one")
                snapshot_id = next(self._disk.numbers)
                commits.append((written.state_location, snapshot_id))
            self._at = written.state_location
        if lost:
            raise CommitOutcomeUnknownError("the seed says so")
        return snapshot_id
