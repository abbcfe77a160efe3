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

from contracts.errors import FieldlakeError
from contracts.ports import Clock
from lakehouse.history import ensure_history
from lakehouse.iceberg import UNKNOWN
from lakehouse.maintenance.compaction import compact, figures
from lakehouse.maintenance.listing import Manifests
from lakehouse.maintenance.removal import remove_rows
from lakehouse.maintenance.removals import RETENTION, Removal, note_removal
from lakehouse.maintenance.retention import rule_of
from lakehouse.maintenance.sweep import Unneeded, doomed, remove
from lakehouse.status import MaintenanceStatus
from lakehouse.tables import CONTRACT_PROPERTY

QUIET_AFTER_MS: Final = 15_000  # ms without a commit after which a table counts as quiet
SWEEP_EVERY_S: Final = 300.0  # seconds between two sweeps of a table; half of the grace, so little outlives it long
# Seconds between two looks for rows that have ended, and from the start of the process to the first: their limit moves
# once a day, and a process with a wrong clock or contract can be stopped before it has removed anything.
RETENTION_EVERY_S: Final = 3_600.0
# Commits of one table in one pass: what a backlog has left is worked off in a few passes, and no table waits for long.
COMPACTIONS_PER_PASS: Final = 8
# Passes over which the files of a sweep are removed: each costs the store several requests, and all at once would keep
# it from everybody else for most of a minute.
PASSES_PER_SWEEP: Final = 16
# Entries of one table's manifests that are held while nothing is left to merge, a few kB each; a longer list is read
# anew when something is.
ENTRIES_HELD_MAX: Final = 2_000
_ACTOR: Final = "maintenance"

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
        self._ended_s: dict[str, float] = {}
        self._doomed: dict[str, Doomed] = {}
        self._unneeded: dict[str, Unneeded] = {}
        self._seen: dict[str, int | None] = {}
        self._manifests: dict[str, Manifests] = {}

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
                    self._keep(catalog, table, stop)
            except UNKNOWN as error:
                self._note(f"catalog {catalog.name}: {error}: check that database and store run; trying again")

    def _keep(self, catalog: SqlCatalog, table: Table, stop: threading.Event) -> None:
        name = f"{catalog.name}.{'.'.join(table.name())}"
        try:
            self._compact(name, table, stop)
            self._ended_s.setdefault(name, self._clock.monotonic_s())
            if self._is_due(self._ended_s, name, RETENTION_EVERY_S):
                self._end(catalog, name, table)
            if self._is_due(self._swept_s, name, SWEEP_EVERY_S):
                self._sweep(name, table)
            removed = remove(table, self._doomed[name].share())
            self._status.files_deleted[name] = self._status.files_deleted.get(name, 0) + removed
        except FieldlakeError as error:
            self._note(str(error))
        except (CommitFailedException, *UNKNOWN) as error:
            self._note(f"table {name}: {error}: check that database and store run; trying again")

    def _compact(self, name: str, table: Table, stop: threading.Event) -> None:
        current = table.current_snapshot()
        # The listing of a table that has not changed since the last look is not worth its requests.
        if current is None or self._seen.get(name) == current.snapshot_id:
            return
        ensure_history(table)
        quiet = self._clock.now_ms() - current.timestamp_ms > QUIET_AFTER_MS
        manifests = self._manifests.setdefault(name, Manifests(table.io))
        for _ in range(COMPACTIONS_PER_PASS):
            merged = compact(table, quiet, manifests=manifests)
            self._status.conflicts += merged.conflicts
            if not merged.files:
                break
            _add(self._status.compactions, name, 1)
            _add(self._status.files_merged, name, merged.files)
            _add(self._status.bytes_rewritten, name, merged.bytes_written)
            if stop.is_set():
                break
        else:
            return  # There may be more, and the next pass goes on with what was read, however long it is.
        self._status.tables[name] = figures(table, manifests)
        if len(manifests) > ENTRIES_HELD_MAX:
            del self._manifests[name]
        newest = table.current_snapshot()
        if quiet and not merged.files and newest is not None:
            self._seen[name] = newest.snapshot_id

    def _end(self, catalog: SqlCatalog, name: str, table: Table) -> None:
        """Remove the rows whose retention is over, and say so in the table of removals."""
        rule = rule_of(table, self._clock.now_ms())
        if rule is not None and table.current_snapshot() is not None:
            done = remove_rows(table, rule, traceless=False)
            self._status.conflicts += done.conflicts
            if done.rows:
                _add(self._status.rows_ended, name, done.rows)
                _add(self._status.bytes_rewritten, name, done.bytes_rewritten)
                note_removal(
                    catalog,
                    Removal(
                        at_ms=self._clock.now_ms(),
                        reason=RETENTION,
                        actor=_ACTOR,
                        table=name,
                        rows=done.rows,
                        files=done.files,
                        rewritten=done.rewritten,
                    ),
                )
        self._ended_s[name] = self._clock.monotonic_s()

    def _sweep(self, name: str, table: Table) -> None:
        now_s = self._clock.now_ms() / 1_000
        unneeded = self._unneeded.setdefault(name, Unneeded())
        ripe = unneeded.ripe(doomed(table, now_s), now_s)
        self._doomed[name] = Doomed(ripe)
        self._status.files_waiting[name] = len(unneeded) - len(ripe)
        self._swept_s[name] = self._clock.monotonic_s()

    def _is_due(self, done_s: dict[str, float], name: str, every_s: float) -> bool:
        return self._clock.monotonic_s() - done_s.get(name, float("-inf")) >= every_s

    def _note(self, text: str) -> None:
        _log.error("%s", text)
        self._status.last_error = text
        self._status.last_error_at_ms = self._clock.now_ms()


def _add(counts: dict[str, int], name: str, more: int) -> None:
    counts[name] = counts.get(name, 0) + more


def _tables(catalog: SqlCatalog) -> Iterator[Table]:
    for namespace in catalog.list_namespaces():
        for identifier in catalog.list_tables(namespace):
            try:
                table = catalog.load_table(identifier)
            except NoSuchTableError:
                continue  # dropped since it was listed
            if CONTRACT_PROPERTY in table.properties:
                yield table
