"""Erase a subject: a customer's right, which comes before the graces of readers.

1. note       a row in the table of removals says that it begins. Crash after: it shows, and a repeat finishes it.
2. rows       the subject's rows leave the current snapshot, and no bounds of them stay in it
              (`lakehouse.maintenance.removal`). Crash after: older snapshots still have them, a repeat drops those.
3. state      when the newest recovery state is named only by snapshots that must go, a new one names it as well.
4. snapshots  that still have such rows, or whose metadata names the subject, are dropped at once, and branches and tags
              that hold them. No grace: a query that reads one of them fails with a file that is not there.
5. files      that nothing refers to any more and that have the subject are removed. A file that a writer may still
              commit is left alone and named as pending; it is found by a repeat, as a row or as what a crash left.
6. verify     with fresh eyes: every remaining snapshot, data file, bound and state is read, and every file in the
              table's folder (`lakehouse.maintenance.verification`).
7. note       what was done and whether anything was found.

A repeat finds what came later, say from a device that was offline: nothing keeps such rows out, because whoever kept
them out would have to know whom they are about. Each step does only what is left to do, so a repeat changes nothing
when there is nothing.
"""

import logging
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, Protocol

from msgspec import Struct
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotRefUpdate,
    RemoveSnapshotsUpdate,
    TableUpdate,
)

from contracts.ports import Clock
from lakehouse.errors import CommitConflictError
from lakehouse.iceberg import state_snapshot
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.listing import Manifests, check_content
from lakehouse.maintenance.removal import count_rows, holding, remove_rows
from lakehouse.maintenance.removals import ERASURE, Removal, note_removal, subject_hash
from lakehouse.maintenance.replacing import replace_files
from lakehouse.maintenance.subjects import About, Subject, rule_of
from lakehouse.maintenance.verification import Found, names_subject, remove_unneeded, verify
from lakehouse.tables import CONTRACT_PROPERTY

DROP_TRIES_MAX: Final = 10  # tries to drop snapshots of a table that is being written

_log = logging.getLogger(__name__)


class Stage(Enum):
    """Points of the protocol at which a process may die."""

    NOTED = "noted"
    ROWS_REMOVED = "rows_removed"
    STATE_NAMED = "state_named"
    SNAPSHOTS_DROPPED = "snapshots_dropped"
    FILES_REMOVED = "files_removed"
    VERIFIED = "verified"


class Fault(Protocol):
    """Called after every step; a test raises or writes in it."""

    def __call__(self, stage: Stage) -> None: ...


def no_fault(stage: Stage) -> None:
    """The fault of production: none."""


class Erased(Struct, frozen=True):
    """What was done in one table, or what would be in a dry run.

    `snapshots` and `files_removed` count what was dropped and deleted because it still had the subject. `remaining`
    says where the subject was found afterwards, `pending` which files a writer may still commit.
    """

    table: str
    rows: int
    files: int
    rewritten: int = 0
    snapshots: int = 0
    files_removed: int = 0
    remaining: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Whether nothing of the subject is left, and nothing can come back."""
        return not self.remaining and not self.pending


def tables_of(catalog: SqlCatalog, subject: Subject, only: str | None = None) -> Iterator[tuple[Table, About]]:
    """Yield the catalog's tables that may have rows about a subject, with the rule that finds them."""
    for namespace in catalog.list_namespaces():
        for identifier in catalog.list_tables(namespace):
            if only is not None and ".".join(identifier) != only:
                continue
            try:
                table = catalog.load_table(identifier)
            except NoSuchTableError:
                continue  # dropped since it was listed
            rule = rule_of(table.metadata, subject) if CONTRACT_PROPERTY in table.properties else None
            if rule is not None:
                yield table, rule


def find(catalog: SqlCatalog, table: Table, rule: About) -> Erased:
    """Return what an erasure would remove now. Changes nothing."""
    rows, files = count_rows(table, rule)
    return Erased(full_name(catalog, table), rows, files)


def erase(catalog: SqlCatalog, table: Table, rule: About, actor: str, clock: Clock, fault: Fault = no_fault) -> Erased:
    """Erase a subject from one table and verify it; see the steps above.

    Raises CommitConflictError and CommitOutcomeUnknownError (repeat it), DeleteFilesError (its text says what to do).
    """
    name, hashed = full_name(catalog, table), subject_hash(rule.subject.kind, rule.subject.id)

    def note(finished: bool, done: Erased) -> None:
        note_removal(
            catalog,
            Removal(
                at_ms=clock.now_ms(),
                reason=ERASURE,
                actor=actor,
                table=name,
                finished=finished,
                subject=hashed,
                rows=done.rows,
                files=done.files,
                rewritten=done.rewritten,
                snapshots=done.snapshots,
                verified=finished and done.verified,
            ),
        )

    note(False, Erased(name, 0, 0))  # Step 1.
    fault(Stage.NOTED)
    removed = remove_rows(table, rule, traceless=True, monotonic_s=clock.monotonic_s)  # Step 2.
    fault(Stage.ROWS_REMOVED)
    snapshots, dropped = _drop_snapshots(table, rule, clock.monotonic_s, fault)  # Steps 3 and 4.
    fault(Stage.SNAPSHOTS_DROPPED)
    deleted = remove_unneeded(table, rule, clock.now_ms() / 1_000, dropped)  # Step 5.
    fault(Stage.FILES_REMOVED)
    found: Found = verify(catalog.load_table(table.name()), rule, clock.now_ms() / 1_000)  # Step 6.
    fault(Stage.VERIFIED)
    done = Erased(
        name,
        removed.rows,
        removed.files,
        removed.rewritten,
        snapshots,
        deleted,
        found.remaining,
        found.pending,
        found.kept,
    )
    note(True, done)  # Step 7.
    return done


def full_name(catalog: SqlCatalog, table: Table) -> str:
    """Return what Trino calls the table."""
    return f"{catalog.name}.{'.'.join(table.name())}"


def _drop_snapshots(
    table: Table, rule: About, monotonic_s: Callable[[], float], fault: Fault
) -> tuple[int, frozenset[str]]:
    """Drop the snapshots that have the subject, and what refers to them; return how many, and what they named."""
    manifests = Manifests(table.io)
    for _ in range(DROP_TRIES_MAX):
        table.refresh()
        doomed = _holding_snapshots(table, rule)
        newest, current = state_snapshot(table), table.current_snapshot()
        if any(snapshot is not None and snapshot.snapshot_id in doomed for snapshot in (newest, current)):  # Step 3.
            replace_files(table, Change({}, ()), manifests, monotonic_s(), monotonic_s=monotonic_s)
        fault(Stage.STATE_NAMED)
        if not doomed:
            return 0, frozenset()
        metadata, dropped = table.metadata, _named_by(table, doomed)
        refs = [name for name, ref in metadata.refs.items() if ref.snapshot_id in doomed and name != MAIN_BRANCH]
        for name in refs:
            _log.warning("erasure: %s of %s holds the subject's rows and is dropped", name, ".".join(table.name()))
        updates: tuple[TableUpdate, ...] = (
            *(RemoveSnapshotRefUpdate.model_validate({"ref-name": name}) for name in refs),
            RemoveSnapshotsUpdate.model_validate({"snapshot-ids": sorted(doomed)}),
        )
        at = {"snapshot-id": metadata.current_snapshot_id, "ref": MAIN_BRANCH}
        try:  # Step 4.
            table._do_commit(
                updates, (AssertTableUUID(uuid=metadata.table_uuid), AssertRefSnapshotId.model_validate(at))
            )
            return len(doomed), dropped
        except CommitFailedException as conflict:
            _log.info("erasure: %s was moved by a writer, looking again: %s", ".".join(table.name()), conflict)
    raise CommitConflictError(
        f"table {'.'.join(table.name())}: writers won {DROP_TRIES_MAX} times in a row: repeat the erasure"
    )


def _holding_snapshots(table: Table, rule: About) -> set[int]:
    """Return the ids of the snapshots that have the subject, in a row or in their metadata."""
    live: dict[str, DataFile] = {}
    lists: dict[int, set[str]] = {}
    naming: set[int] = set()
    for snapshot in table.metadata.snapshots:
        manifests, own = Manifests(table.io), lists.setdefault(snapshot.snapshot_id, set())
        for manifest in manifests.of(snapshot):
            check_content(table, manifest)
            for entry in manifests.entries(manifest):
                if names_subject(entry, rule):
                    naming.add(snapshot.snapshot_id)
            found = {entry.data_file.file_path: entry.data_file for entry in manifests.live(manifest)}
            own.update(found)
            live |= found
    held = holding(table, rule, list(live.values()))
    return naming | {snapshot_id for snapshot_id, paths in lists.items() if paths & held}


def _named_by(table: Table, doomed: set[int]) -> frozenset[str]:
    """Return the locations of all lists, manifests and data files that these snapshots name."""
    found: set[str] = set()
    manifests = Manifests(table.io)
    for snapshot in table.metadata.snapshots:
        if snapshot.snapshot_id in doomed:
            found.add(snapshot.manifest_list)
            for manifest in manifests.of(snapshot):
                found.add(manifest.manifest_path)
                found |= {entry.data_file.file_path for entry in manifests.entries(manifest)}
    return frozenset(found)
