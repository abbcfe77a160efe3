"""Rows to a data file of a table."""

from typing import Final
from uuid import uuid4

import pyarrow as pa
from pyiceberg.io.pyarrow import write_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, WriteTask

from lakehouse.tables import SORT_PROPERTY

IDENTITY: Final = ("origin", "epoch", "seq")  # columns that name a row


def write_rows(table: Table, rows: pa.Table, sort: bool = True) -> tuple[DataFile, ...]:
    """Write one data file with the table's columns; columns that the rows lack become null.

    `sort`: by the contract's sort fields and then by identity; rows of one commit are left as they came.
    """
    columns = table.schema().as_arrow()
    arrays = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in columns
    ]
    aligned = pa.Table.from_arrays(arrays, schema=columns)
    if sort:
        order = [name for name in table.properties.get(SORT_PROPERTY, "").split(",") if name]
        aligned = aligned.sort_by([(name, "ascending") for name in (*order, *IDENTITY)])
    batches = aligned.combine_chunks().to_batches()
    task = WriteTask(write_uuid=uuid4(), task_id=0, schema=table.schema(), record_batches=batches)
    files = tuple(write_file(table.io, table.metadata, iter([task])))
    for file in files:
        file.spec_id = table.spec().spec_id  # the library sets it only on what it reads, and needs it to delete a file
    return files
