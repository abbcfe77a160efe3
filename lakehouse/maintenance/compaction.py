"""Merge small files of a table into one sorted file, beside a writer that never waits.

1. read       the chosen files of the current snapshot.
2. write      one file, sorted by the contract's sort fields. Nothing refers to it yet; if the rest fails, the sweep
              removes it.
3. replace    one snapshot that drops the inputs and adds the output. Conflict: another commit came first; repeat this
              step on the refreshed table, provided that all inputs are still live there.

The newest files belong to the writer, which merges them itself (`lakehouse.tail`), until the table is quiet.

Rows are the same before and after, and no input is dropped unless it is live in the very snapshot that is replaced, so
a lost race costs work and never rows.
"""

import logging
from typing import Final

import pyarrow as pa
from msgspec import Struct
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import FileScanTask, Table

from lakehouse.data_files import write_rows
from lakehouse.expiry import expire_within
from lakehouse.maintenance.merging import File, merge
from lakehouse.transactions import LeanTransaction

# Tries of step 3. At the highest commit rate a try wins about every other time, so ten lose once in a thousand.
REPLACE_TRIES_MAX: Final = 10

_log = logging.getLogger(__name__)


class Merged(Struct, frozen=True):
    """What one compaction did; `files` is 0 when nothing was due or it was given up."""

    files: int
    conflicts: int


def compact(table: Table, quiet: bool) -> Merged:
    """Merge the files that are due. Errors of store and catalog pass through; the table is then unchanged or merged."""
    live = _live(table)
    chosen = merge([file for file, _ in live.values()], quiet)
    if not chosen:
        return Merged(0, 0)
    inputs = [FileScanTask(live[file.path][1]) for file in chosen]
    rows = _read(table, inputs)  # Step 1.
    outputs = write_rows(table, rows)  # Step 2.
    conflicts = 0
    while conflicts < REPLACE_TRIES_MAX:  # Step 3.
        try:
            _replace(table, [task.file for task in inputs], outputs)
            return Merged(len(inputs), conflicts)
        except CommitFailedException:
            conflicts += 1
            table.refresh()
        except ValidationException as error:
            _log.info("compaction of %s given up, its inputs were replaced: %s", ".".join(table.name()), error)
            break
    return Merged(0, conflicts)


def _live(table: Table) -> dict[str, tuple[File, DataFile]]:
    """Return the current data files by path."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return {}
    newest = snapshot.sequence_number or 0
    return {
        entry.data_file.file_path: (
            File(entry.data_file.file_path, entry.data_file.file_size_in_bytes, newest - (entry.sequence_number or 0)),
            entry.data_file,
        )
        for manifest in snapshot.manifests(table.io)
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io)
    }


def _read(table: Table, inputs: list[FileScanTask]) -> pa.Table:
    return ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(inputs)


def _replace(table: Table, inputs: list[DataFile], outputs: tuple[DataFile, ...]) -> None:
    transaction = LeanTransaction(table)
    with transaction.update_snapshot().overwrite() as overwrite:
        for file in inputs:
            overwrite.delete_data_file(file)
        for file in outputs:
            overwrite.append_data_file(file)
    expire_within(transaction, table)
    transaction.commit_transaction()
