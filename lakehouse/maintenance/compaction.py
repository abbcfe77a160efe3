"""Merge small files of a table into sorted ones and move the tail's rows to the history, beside a writer.

1. plan     which files are due (`lakehouse.maintenance.merging`), on the current snapshot.
2. rewrite  their rows are read, sorted and written, group by group and never more than DECODED_BYTES_MAX of them at
            once. Crash after: nothing refers to the new files, the sweep removes them.
3. replace  one commit puts the new files in the place of the old ones, provided that all of those are still live
            (`lakehouse.maintenance.replacing`).

Rows are the same before and after, and no input is dropped unless it is live in the very snapshot that is replaced, so
a lost race costs work and never rows.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from lakehouse.data_files import NO_PARTITION, order, store
from lakehouse.errors import RowCountError
from lakehouse.evolution import layout_of
from lakehouse.history import buckets, by_bucket, history_spec, subject_id
from lakehouse.landing import backfilled
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.listing import Manifests, live_files
from lakehouse.maintenance.merging import File, Group, Part, plan
from lakehouse.maintenance.reading import read_files
from lakehouse.maintenance.replacing import Fault, no_fault, replace_files
from lakehouse.maintenance.sorting import sorted_order
from lakehouse.schema import arrow_schema
from lakehouse.status import TableFigures

# Bytes of rows held decoded. With their order, the files read ahead and what the allocator keeps for the next one, the
# process comes to 1.1 GB under 100,000 events/s.
DECODED_BYTES_MAX: Final = 268_435_456
WRITERS: Final = 2  # threads; while one waits for the store the other encodes, and each holds the rows of a bucket

_log = logging.getLogger(__name__)


class Merged(Struct, frozen=True):
    """What one compaction did; `files` is 0 when nothing was due or it was given up."""

    files: int
    conflicts: int
    bytes_read: int = 0
    bytes_written: int = 0


def compact(
    table: Table,
    quiet: bool,
    fault: Fault = no_fault,
    monotonic_s: Callable[[], float] = time.monotonic,
    manifests: Manifests | None = None,
) -> Merged:
    """Merge the files that are due; once for each commit, so the caller repeats it until nothing is due.

    `manifests`: those of an earlier call, so that only new ones are read.

    Errors of store and catalog pass through; the table is then unchanged or merged. Raises CommitConflictError,
    CommitOutcomeUnknownError, DeleteFilesError and RowCountError.
    """
    manifests = Manifests(table.io) if manifests is None else manifests
    live = dict(_live(table, manifests))
    spec = history_spec(table.metadata)
    groups = plan([file for file, _ in live.values()], spec is not None, quiet)  # Step 1.
    if not groups:
        return Merged(0, 0)
    written_s = monotonic_s()
    removed = {file.path: live[file.path][1] for group in groups for file in group.files}
    added = tuple(output for group in groups for output in _rewrite(table, group, removed, spec))  # Step 2.
    change = Change(removed, added)
    replaced = replace_files(table, change, manifests, written_s, fault, monotonic_s)  # Step 3.
    if replaced.snapshot_id is None:
        _log.info("compaction of %s given up: its inputs were replaced", ".".join(table.name()))
        return Merged(0, replaced.conflicts)
    return Merged(
        len(removed),
        replaced.conflicts,
        sum(file.file_size_in_bytes for file in removed.values()),
        sum(file.file_size_in_bytes for file in added),
    )


def _live(table: Table, manifests: Manifests) -> Iterator[tuple[str, tuple[File, DataFile]]]:
    """Yield the current data files by path. What snapshots that are still kept have added is fresh."""
    fresh_from = min((snapshot.sequence_number or 0 for snapshot in table.metadata.snapshots), default=0)
    for entry, file in live_files(table, manifests):
        is_tail = len(file.partition) == 0
        yield (
            file.file_path,
            (
                File(
                    file.file_path,
                    file.file_size_in_bytes,
                    Part.TAIL if is_tail else Part.HISTORY,
                    None if is_tail else file.partition[0],
                    entry.sequence_number or 0,
                    (entry.sequence_number or 0) >= fresh_from,
                ),
                file,
            ),
        )


def _rewrite(table: Table, group: Group, files: dict[str, DataFile], spec: PartitionSpec | None) -> Iterator[DataFile]:
    """Write the rows of a group anew; yield the files."""
    held: list[pa.Table] = []
    held_bytes = 0
    inputs = [files[file.path] for file in group.files]
    layout = layout_of(table.metadata)
    for file, rows in read_files(table, inputs, arrow_schema(table.schema())):
        if len(rows) != file.record_count:
            raise RowCountError(
                f"file {file.file_path}: expected {file.record_count} rows, found {len(rows)}: it is not what was "
                "committed: restore it from the store's versions"
            )
        held.append(backfilled(rows, layout))
        held_bytes += rows.nbytes
        if held_bytes > DECODED_BYTES_MAX:
            yield from _write(table, held, group.to, spec)
            held, held_bytes = [], 0
    if held:
        yield from _write(table, held, group.to, spec)


def _write(table: Table, held: list[pa.Table], to: Part, spec: PartitionSpec | None) -> Iterator[DataFile]:
    rows = _joined(held)
    keys = [rows.column(name) for name in order(table)]
    subject = subject_id(table.metadata)
    if to is Part.TAIL or spec is None or subject is None:
        yield store(table, rows.take(pa.array(sorted_order(keys))), table.metadata.specs()[0], NO_PARTITION)
        return
    schema = table.schema()
    bucket = buckets(rows.column(schema.find_column_name(subject)), schema.find_type(subject))
    places = sorted_order([bucket, *keys])

    def stored(part: tuple[Record, NDArray[np.int64]]) -> DataFile:
        partition, own = part
        return store(table, rows.take(pa.array(own)), spec, partition)

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as pool:
        yield from pool.map(stored, by_bucket(bucket, places))


def _joined(held: list[pa.Table]) -> pa.Table:
    """Return all rows, each column in one piece; empties the list, so that both never are in memory as a whole."""
    schema = held[0].schema
    columns = [table.columns for table in held]
    held.clear()
    joined = []
    for field in schema:
        chunks = [chunk for own in columns for chunk in own.pop(0).chunks]
        joined.append(pa.chunked_array(chunks, type=field.type).combine_chunks())
    return pa.Table.from_arrays(joined, schema=schema)


def figures(table: Table, manifests: Manifests | None = None) -> TableFigures:
    """Return what a table consists of now; reads those of its manifests that are new. Raises DeleteFilesError."""
    manifests = Manifests(table.io) if manifests is None else manifests
    files = [file for file, _ in dict(_live(table, manifests)).values()]
    tail = [file.size_bytes for file in files if file.part is Part.TAIL]
    history = [file.size_bytes for file in files if file.part is Part.HISTORY]
    current = table.current_snapshot()
    return TableFigures(
        tail_files=len(tail),
        tail_bytes=sum(tail),
        history_files=len(history),
        history_bytes=sum(history),
        manifests=len(manifests.of(current)) if current is not None else 0,
        snapshots=len(table.metadata.snapshots),
    )
