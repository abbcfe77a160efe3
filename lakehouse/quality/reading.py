"""Rows that were committed to a table since the last look: a bounded sample of them, without a lock or a change.

Files are told apart by their sequence number, which the table raises with every commit. A merge writes old rows into a
new file: its rows are left out by their identity, read from the files that it replaced.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse.quality.expectations import IDENTITY

# Rows of replaced files whose identities are held to know old rows by; beyond it old rows are looked at again.
REPLACED_ROWS_MAX: Final = 500_000
FILES_MAX: Final = 64  # files of one look
_FIELD_ID: Final = b"PARQUET:field_id"

_log = logging.getLogger(__name__)


class Committed(Struct, frozen=True):
    """What one look found: up to which sequence number, how many rows are new, and a sample of them."""

    sequence: int
    snapshot_id: int
    rows_committed: int
    sample: pa.Table


class _Group(NamedTuple):
    """One row group of a data file."""

    file: pq.ParquetFile
    at: int
    rows: int


def committed_since(table: Table, sequence: int, rows_max: int) -> Committed | None:
    """Return what was committed after a sequence number (0: everything), None when that is nothing.

    The sample is of whole row groups, spread evenly over the new files. Errors: OSError when the store does not answer.
    """
    current = table.current_snapshot()
    if current is None or (current.sequence_number or 0) <= sequence:
        return None
    newest = current.sequence_number or 0
    files = [file for file, at in _live(table, current) if at > sequence]
    replaced = _replaced(table, sequence) if sequence else []
    fresh = sum(file.record_count for file in files) - sum(file.record_count for file in replaced)
    names = table.schema()
    if not files or fresh <= 0:
        return Committed(newest, current.snapshot_id, 0, names.as_arrow().empty_table())
    sample = _read(table, files, rows_max if not replaced else rows_max + sum(f.record_count for f in replaced))
    if replaced and sum(file.record_count for file in replaced) <= REPLACED_ROWS_MAX:
        sample = _without(sample, _identities(table, replaced))
    return Committed(newest, current.snapshot_id, fresh, sample.slice(0, rows_max))


def _live(table: Table, snapshot: Snapshot) -> Iterator[tuple[DataFile, int]]:
    for manifest in snapshot.manifests(table.io):
        if manifest.content == ManifestContent.DATA:
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                yield entry.data_file, entry.sequence_number or 0


def _replaced(table: Table, sequence: int) -> list[DataFile]:
    """Return files that were looked at before and that a newer snapshot has taken out."""
    found: list[DataFile] = []
    for snapshot in table.metadata.snapshots:
        summary = snapshot.summary
        if (snapshot.sequence_number or 0) <= sequence or summary is None or not summary.get("deleted-data-files"):
            continue
        for manifest in snapshot.manifests(table.io):
            if manifest.added_snapshot_id != snapshot.snapshot_id:
                continue
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
                if entry.status == ManifestEntryStatus.DELETED and (entry.sequence_number or 0) <= sequence:
                    found.append(entry.data_file)
    return found


def _read(table: Table, files: Sequence[DataFile], rows_max: int) -> pa.Table:
    # The evenly spread ones of many: opening a file is a request of the store.
    files = files[:: math.ceil(len(files) / FILES_MAX)]
    groups = [group for file in files for group in _groups(table, file)]
    step = max(1, math.ceil(sum(group.rows for group in groups) / max(1, rows_max)))
    parts = [_named(group.file.read_row_group(group.at), table) for group in groups[::step]]
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def _groups(table: Table, file: DataFile) -> list[_Group]:
    opened = pq.ParquetFile(table.io.new_input(file.file_path).open())
    return [_Group(opened, at, opened.metadata.row_group(at).num_rows) for at in range(opened.num_row_groups)]


def _named(rows: pa.Table, table: Table) -> pa.Table:
    """Return columns by the names and types they have now; a file keeps those of its day. A new column is null."""
    columns = {int((field.metadata or {})[_FIELD_ID]): rows.column(at) for at, field in enumerate(rows.schema)}
    schema = table.schema()
    wanted = schema.as_arrow()
    arrays = [
        columns[field.field_id].cast(kind.type) if field.field_id in columns else pa.nulls(rows.num_rows, kind.type)
        for field, kind in zip(schema.fields, wanted, strict=True)
    ]
    return pa.Table.from_arrays(arrays, names=wanted.names)


def _identities(table: Table, files: Sequence[DataFile]) -> pa.Table:
    parts: list[pa.Table] = []
    for file in files:
        try:
            with table.io.new_input(file.file_path).open() as stream:
                parts.append(pq.read_table(stream, columns=list(IDENTITY)))
        except FileNotFoundError:
            _log.info("%s has been removed: its rows are looked at once more", file.file_path)
    return pa.concat_tables(parts) if parts else pa.table({name: [] for name in IDENTITY})


def _without(rows: pa.Table, seen: pa.Table) -> pa.Table:
    if not seen.num_rows:
        return rows
    numbered = rows.select(IDENTITY).append_column("at", pa.array(range(rows.num_rows), pa.int64()))
    known = [seen.column(name).cast(numbered.schema.field(name).type) for name in IDENTITY]
    old = pa.table(known, names=list(IDENTITY))
    kept = numbered.join(old, list(IDENTITY), join_type="left anti", use_threads=False)
    return rows.take(kept.column("at").combine_chunks().sort())
