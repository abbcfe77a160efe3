"""Remove rows from a table, copy on write, beside a writer that never waits.

1. look      which live files may have such rows, by their bounds; the columns that decide are read of those only.
2. rewrite   a file with such rows is written again without them, in its own part and order; one that has no others
             just goes. Crash after: nothing refers to the new files, the sweep removes them.
3. replace   one commit for up to BATCH_BYTES_MAX of files (`lakehouse.maintenance.replacing`). Files that a merge has
             replaced meanwhile: nothing was done.
4. again     until a look finds nothing, so rows that arrived meanwhile, or moved to other files, go as well.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from msgspec.structs import replace
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from lakehouse.data_files import store
from lakehouse.errors import CommitConflictError
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.listing import Manifests, live_files
from lakehouse.maintenance.reading import read_files
from lakehouse.maintenance.replacing import Fault, no_fault, replace_files

BATCH_BYTES_MAX: Final = 134_217_728  # bytes compressed of one commit; a few seconds' work, lost if its inputs go
# Looks in a row that may find rows without an end: a merge takes its inputs seconds before it commits, so ten looks
# outlast any; a writer that goes on sending such rows must be stopped first.
LOOKS_MAX: Final = 10


class Rule(Protocol):
    """Which rows go. `columns`: the names that `matches` needs."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    def may_hold(self, file: DataFile) -> bool:
        """Say whether a file may have such rows, by what its entry says of it."""
        ...

    def holds_only(self, file: DataFile) -> bool:
        """Say whether all rows of a file are such, by what its entry says of it."""
        ...

    def matches(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return which rows go, as booleans without nulls; `rows` has the rule's columns."""
        ...


class Removed(Struct, frozen=True):
    """What a removal did; `files` went, `rewritten` of them came back without the rows."""

    rows: int = 0
    files: int = 0
    rewritten: int = 0
    bytes_rewritten: int = 0
    conflicts: int = 0


class _Batch(Struct):
    """Files of one commit in the making."""

    removed: dict[str, DataFile]
    added: list[DataFile]
    rows: int = 0
    size_bytes: int = 0


def remove_rows(
    table: Table,
    rule: Rule,
    traceless: bool,
    fault: Fault = no_fault,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Removed:
    """Remove the rows that a rule names. `traceless`: leave no bounds of theirs in the new snapshots either.

    Raises CommitConflictError when LOOKS_MAX looks in a row found some, CommitOutcomeUnknownError, DeleteFilesError.
    """
    done = Removed()
    manifests = Manifests(table.io)
    for _ in range(LOOKS_MAX):  # Step 4.
        table.refresh()
        began_s = monotonic_s()
        found = False
        for batch in _batches(table, rule, manifests):  # Steps 1 and 2.
            found = True
            change = Change(batch.removed, tuple(batch.added), rows_changed=True, traceless=traceless)
            replaced = replace_files(table, change, manifests, began_s, fault, monotonic_s)  # Step 3.
            done = replace(done, conflicts=done.conflicts + replaced.conflicts)
            if replaced.snapshot_id is None:
                break
            done = _plus(done, batch)
            began_s = monotonic_s()
        if not found:
            return done
    raise CommitConflictError(
        f"table {'.'.join(table.name())}: expected no rows to remove after {LOOKS_MAX} looks, found more each time: "
        "stop what writes them, then repeat"
    )


def count_rows(table: Table, rule: Rule) -> tuple[int, int]:
    """Return how many rows of the current snapshot a rule names, and how many files they are in."""
    counts = [
        int(pc.sum(rule.matches(rows)).as_py() or 0) for _, rows in _deciding(table, rule, _candidates(table, rule))
    ]
    return sum(counts), sum(count > 0 for count in counts)


def holding(table: Table, rule: Rule, files: list[DataFile]) -> set[str]:
    """Return the paths of those files that have rows which a rule names."""
    suspects = [file for file in files if rule.may_hold(file)]
    return {file.file_path for file, rows in _deciding(table, rule, suspects) if pc.any(rule.matches(rows)).as_py()}


def _candidates(table: Table, rule: Rule, manifests: Manifests | None = None) -> list[DataFile]:
    live = live_files(table, manifests or Manifests(table.io))
    return [file for _, file in live if rule.may_hold(file)]


def _deciding(table: Table, rule: Rule, files: list[DataFile]) -> Iterator[tuple[DataFile, pa.Table]]:
    schema = table.schema().as_arrow()
    return read_files(table, files, pa.schema([schema.field(name) for name in rule.columns]))


def _batches(table: Table, rule: Rule, manifests: Manifests) -> Iterator[_Batch]:
    """Yield what to replace, commit by commit; the files of a batch are written when it is yielded."""
    candidates = _candidates(table, rule, manifests)
    batch = _Batch({}, [])
    for file in candidates:
        if rule.holds_only(file):
            batch.removed[file.file_path] = file
            batch.rows += file.record_count
    partly = [file for file in candidates if file.file_path not in batch.removed]
    for file, deciding in _deciding(table, rule, partly):
        gone = rule.matches(deciding)
        if not pc.any(gone).as_py():
            continue
        batch.removed[file.file_path] = file
        batch.rows += int(pc.sum(gone).as_py())
        batch.size_bytes += file.file_size_in_bytes
        batch.added += _without(table, file, gone)
        if batch.size_bytes > BATCH_BYTES_MAX:
            yield batch
            batch = _Batch({}, [])
    if batch.removed:
        yield batch


def _without(table: Table, file: DataFile, gone: pa.ChunkedArray) -> list[DataFile]:
    """Write a file again without some rows; nothing when none is left."""
    ((_, rows),) = read_files(table, [file], table.schema().as_arrow())
    left = rows.filter(pc.invert(gone))
    return [store(table, left, table.metadata.specs()[file.spec_id], file.partition)] if len(left) else []


def _plus(done: Removed, batch: _Batch) -> Removed:
    return replace(
        done,
        rows=done.rows + batch.rows,
        files=done.files + len(batch.removed),
        rewritten=done.rewritten + len(batch.added),
        bytes_rewritten=done.bytes_rewritten + sum(file.file_size_in_bytes for file in batch.added),
    )
