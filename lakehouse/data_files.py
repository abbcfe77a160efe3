"""Rows to a data file of a table."""

from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from lakehouse.handover import DataFileForm
from lakehouse.landing import aligned
from lakehouse.schema import arrow_schema
from lakehouse.tables import ROW_GROUP_ROWS, SORT_PROPERTY

IDENTITY: Final = ("origin", "epoch", "seq")  # columns that name a row
NO_PARTITION: Final = Record()


def write_rows(table: Table, rows: pa.Table, sort: bool = True) -> tuple[DataFile, ...]:
    """Write one data file of the table's default spec, with the columns of the table object in hand.

    Columns that the rows lack become null. Rows that carry column ids go by them, so a column that was renamed since
    they were made has its values, and one that was dropped leaves them out. The file has the ids of the schema it is
    written under: whatever the schema is when it is committed, its columns are found by them.

    `sort`: by the contract's sort fields and then by identity; rows of one commit are left as they came.
    """
    whole = aligned(rows, arrow_schema(table.schema()))
    if sort:
        whole = whole.sort_by([(name, "ascending") for name in order(table)])
    return (store(table, whole, table.spec(), NO_PARTITION),)


def order(table: Table) -> tuple[str, ...]:
    """Return the columns that merged files are sorted by: the contract's own, then identity; those that exist."""
    sort_fields = [name for name in table.properties.get(SORT_PROPERTY, "").split(",") if name]
    present = {field.name for field in table.schema().fields}
    return tuple(name for name in dict.fromkeys((*sort_fields, *IDENTITY)) if name in present)


def _settings(columns: pa.Schema) -> dict[str, Any]:
    """Return how Parquet shall be written.

    A dictionary per row group of numbers that hardly repeat costs more than it saves: with dictionaries for text only,
    and differences for times and whole numbers that count up, measurements take a third less room and a quarter of the
    time. The page index lets a reader skip within a row group; the library's own writer has no setting for it.
    """
    texts = [field.name for field in columns if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    growing = [field.name for field in columns if pa.types.is_timestamp(field.type) or pa.types.is_int64(field.type)]
    return {
        "compression": "zstd",
        "use_dictionary": texts,
        "column_encoding": dict.fromkeys(growing, "DELTA_BINARY_PACKED"),
        "write_page_index": True,
        "store_decimal_as_integer": True,
    }


def store(table: Table, rows: pa.Table, spec: PartitionSpec, partition: Record) -> DataFile:
    """Write rows, which have the table's columns with their field ids, as one file of a partition of a spec."""
    schema = table.schema()
    location = table.location_provider().new_data_location(f"{uuid4()}.parquet")
    output = table.io.new_output(location)
    settings = _settings(rows.schema)
    with output.create(overwrite=True) as stream, pq.ParquetWriter(stream, rows.schema, **settings) as writer:
        writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
    statistics = data_file_statistics_from_parquet_metadata(
        writer.writer.metadata,
        compute_statistics_plan(schema, table.metadata.properties),
        parquet_path_to_id_mapping(schema),
    )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=location,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=len(output),
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )
    file.spec_id = spec.spec_id  # the library sets it only on what it reads, and needs it to delete a file
    return file


def form_of(file: DataFile) -> DataFileForm:
    """Return a data file in the form in which it is handed over."""
    return DataFileForm(
        path=file.file_path,
        rows=file.record_count,
        size_bytes=file.file_size_in_bytes,
        column_sizes=dict(file.column_sizes or {}),
        value_counts=dict(file.value_counts or {}),
        null_counts=dict(file.null_value_counts or {}),
        nan_counts=dict(file.nan_value_counts or {}),
        lower_bounds=dict(file.lower_bounds or {}),
        upper_bounds=dict(file.upper_bounds or {}),
        split_offsets=tuple(file.split_offsets or ()),
        sort_order_id=file.sort_order_id,
    )


def file_of(form: DataFileForm) -> DataFile:
    """Return what was handed over as the library's data file."""
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=form.path,
        file_format=FileFormat.PARQUET,
        partition=NO_PARTITION,
        record_count=form.rows,
        file_size_in_bytes=form.size_bytes,
        column_sizes=form.column_sizes,
        value_counts=form.value_counts,
        null_value_counts=form.null_counts,
        nan_value_counts=form.nan_counts,
        lower_bounds=form.lower_bounds,
        upper_bounds=form.upper_bounds,
        key_metadata=None,
        split_offsets=list(form.split_offsets) or None,
        equality_ids=None,
        sort_order_id=form.sort_order_id,
    )
