"""Data files to rows of the table's present columns, many small files at once.

The library's scan builds a dataset, a projection and a filter per file: a file of some kilobytes takes it longer to
plan than to read. Here a file is one request, and its columns are found by field id, so a renamed or widened column is
the table's own whatever it was called when the file was written.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table

READERS: Final = 4  # threads; a read mostly waits for the store, and the rest of it releases the interpreter
AHEAD: Final = 8  # files read before they are asked for; bounds what is held beside the caller's own rows
_FIELD_ID: Final = b"PARQUET:field_id"


def read_files(table: Table, files: Iterable[DataFile], columns: pa.Schema) -> Iterator[tuple[DataFile, pa.Table]]:
    """Yield each file with its rows in the given columns of the table, in order; at most AHEAD files are read ahead.

    `columns` carry field ids, as `Schema.as_arrow` makes them; a column that a file lacks is null. Errors of the store
    pass through.
    """
    waiting: deque[tuple[DataFile, Future[pa.Table]]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
        try:
            for file in files:
                waiting.append((file, pool.submit(read_file, table, file, columns)))
                if len(waiting) > AHEAD:
                    done, rows = waiting.popleft()
                    yield done, rows.result()
            while waiting:
                done, rows = waiting.popleft()
                yield done, rows.result()
        finally:
            for _, rows in waiting:
                rows.cancel()


def read_file(table: Table, file: DataFile, columns: pa.Schema) -> pa.Table:
    """Return a file's rows in the given columns."""
    with table.io.new_input(file.file_path).open(seekable=False) as stream:
        stored = pq.ParquetFile(pa.BufferReader(stream.read()))
        own = stored.schema_arrow  # made anew at every look, which for all columns takes longer than to read one
        names = {_id(field): field.name for field in own}
        if None in names:  # written by somebody who names columns only: the table's name mapping decides
            scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
            rows = scan.to_table([FileScanTask(file)])
            return pa.table([rows.column(field.name).cast(field.type) for field in columns], schema=columns)
        wanted = [(_id(field), field.type) for field in columns]
        rows = stored.read(columns=[names[field] for field, _ in wanted if field in names], use_threads=False)
    found = {_id(field): rows.column(at) for at, field in enumerate(rows.schema)}
    arrays = [_as(found[field], kind) if field in found else pa.nulls(len(rows), kind) for field, kind in wanted]
    return pa.Table.from_arrays(arrays, schema=columns)


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def _id(field: pa.Field) -> bytes | None:
    found: bytes | None = (field.metadata or {}).get(_FIELD_ID)
    return found
