"""Merge small files of a table into one sorted file, beside a writer that never waits.

1. read       the chosen files of the current snapshot, sorted by the contract's sort fields.
2. write      one file. Nothing refers to it yet; if the rest fails, the sweep removes it.
3. replace    one snapshot that drops the inputs and adds the output. Conflict: another commit came first; repeat this
              step on the refreshed table, provided that all inputs are still live there.

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
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

from lakehouse.expiry import expire_within
from lakehouse.iceberg import write_rows
from lakehouse.maintenance.merging import File, merge
from lakehouse.tables import SORT_PROPERTY
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
    tasks = {task.file.file_path: task for task in table.scan().plan_files() if not task.delete_files}
    chosen = merge([File(path, task.file.file_size_in_bytes) for path, task in tasks.items()], quiet)
    if not chosen:
        return Merged(0, 0)
    inputs = [tasks[file.path] for file in chosen]
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


def _read(table: Table, inputs: list[FileScanTask]) -> pa.Table:
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    order = [name for name in table.properties.get(SORT_PROPERTY, "").split(",") if name]
    return scan.to_table(inputs).sort_by([(name, "ascending") for name in (*order, "origin", "epoch", "seq")])


def _replace(table: Table, inputs: list[DataFile], outputs: tuple[DataFile, ...]) -> None:
    transaction = LeanTransaction(table)
    with transaction.update_snapshot().overwrite() as overwrite:
        for file in inputs:
            overwrite.delete_data_file(file)
        for file in outputs:
            overwrite.append_data_file(file)
    expire_within(transaction, table)
    transaction.commit_transaction()
