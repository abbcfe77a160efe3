"""The maintenance process: pass over all tables of ours, again and again."""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from math import ceil
from typing import Final

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.table import Table

from contracts.ports import Clock
from lakehouse.iceberg import UNKNOWN
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.sweep import doomed, remove
from lakehouse.status import MaintenanceStatus
from lakehouse.tables import CONTRACT_PROPERTY

QUIET_AFTER_MS: Final = 15_000  # ms without a commit after which a table counts as quiet
SWEEP_EVERY_S: Final = 300.0  # seconds between two sweeps of a table; half of the grace, so little outlives it long
# Passes over which the files of a sweep are removed: each costs the store several requests, and all at once would keep
# it from everybody else for most of a minute.
PASSES_PER_SWEEP: Final = 16

_log = logging.getLogger(__name__)


class Doomed:
    """Files that a sweep has found, removed in equal shares."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = deque(paths)
        self._share = ceil(len(paths) / PASSES_PER_SWEEP)

    def share(self) -> list[str]:
        """Take the next share."""
        return [self._paths.popleft() for _ in range(min(self._share, len(self._paths)))]


class Keeper:
    """Works on one table at a time: two cores are shared with the writer."""

    def __init__(self, catalogs: tuple[SqlCatalog, ...], clock: Clock, status: MaintenanceStatus) -> None:
        self._catalogs, self._clock, self._status = catalogs, clock, status
        self._swept_s: dict[str, float] = {}
        self._doomed: dict[str, Doomed] = {}
        self._seen: dict[str, int | None] = {}

    def run(self, interval_ms: int, stop: threading.Event, ready: threading.Event) -> None:
        """Pass until stopped. Trouble with one table is noted and does not stop the others."""
        while not stop.is_set():
            began_s = self._clock.monotonic_s()
            self.step(stop)
            self._status.ready = True
            ready.set()
            self._status.passes += 1
            self._status.last_pass_ms = (self._clock.monotonic_s() - began_s) * 1_000
            stop.wait(max(0.0, interval_ms / 1_000 - (self._clock.monotonic_s() - began_s)))

    def step(self, stop: threading.Event) -> None:
        """One pass."""
        for catalog in self._catalogs:
            try:
                for table in _tables(catalog):
                    if stop.is_set():
                        return
                    self._keep(catalog, table)
            except UNKNOWN as error:
                self._note(f"catalog {catalog.name}: {error}: check that database and store run; trying again")

    def _keep(self, catalog: SqlCatalog, table: Table) -> None:
        name = f"{catalog.name}.{'.'.join(table.name())}"
        try:
            self._compact(name, table)
            if self._clock.monotonic_s() - self._swept_s.setdefault(name, float("-inf")) >= SWEEP_EVERY_S:
                self._doomed[name] = Doomed(doomed(table, self._clock.now_ms() / 1_000))
                self._swept_s[name] = self._clock.monotonic_s()
            removed = remove(table, self._doomed[name].share())
            self._status.files_deleted[name] = self._status.files_deleted.get(name, 0) + removed
        except (CommitFailedException, *UNKNOWN) as error:
            self._note(f"table {name}: {error}: check that database and store run; trying again")

    def _compact(self, name: str, table: Table) -> None:
        current = table.current_snapshot()
        # The listing of a table that has not changed since the last look is not worth its requests.
        if current is None or self._seen.get(name) == current.snapshot_id:
            return
        quiet = self._clock.now_ms() - current.timestamp_ms > QUIET_AFTER_MS
        merged = compact(table, quiet)
        self._status.conflicts += merged.conflicts
        if merged.files:
            self._status.compactions[name] = self._status.compactions.get(name, 0) + 1
            self._status.files_merged[name] = self._status.files_merged.get(name, 0) + merged.files
        elif quiet:
            self._seen[name] = current.snapshot_id

    def _note(self, text: str) -> None:
        _log.error("%s", text)
        self._status.last_error = text
        self._status.last_error_at_ms = self._clock.now_ms()


def _tables(catalog: SqlCatalog) -> Iterator[Table]:
    for namespace in catalog.list_namespaces():
        for identifier in catalog.list_tables(namespace):
            try:
                table = catalog.load_table(identifier)
            except NoSuchTableError:
                continue  # dropped since it was listed
            if CONTRACT_PROPERTY in table.properties:
                yield table
