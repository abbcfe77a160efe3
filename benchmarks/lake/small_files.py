"""A table with very many small files, put there without the ingest: ten thousand commits would take an hour."""

import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import PyArrowFileIO, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table, WriteTask

from benchmarks.lake import workload
from benchmarks.lake.ground import Tell
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from lakehouse.tables import ROW_GROUP_ROWS

ORIGIN: Final = "small-files"
EPOCH: Final = 1
AT_ONCE: Final = 1_000  # files of one commit
THREADS: Final = 2
TRIES_MAX: Final = 20
BARE_FILES: Final = 100  # as many as a merge of half a million rows


def fill(table: Table, contract: Contract, files: int, file_rows: int, tell: Tell) -> int:
    """Add so many files of consecutive sequence numbers of one origin; return their bytes."""
    size_bytes = 0
    with ThreadPoolExecutor(THREADS, thread_name_prefix="small-files") as pool:
        for first in range(0, files, AT_ONCE):
            numbers = range(first, min(files, first + AT_ONCE))
            made = list(pool.map(lambda number: _write(table, contract, number, file_rows), numbers))
            _append(table, made)
            size_bytes += sum(file.file_size_in_bytes for file in made)
            tell(f"{numbers.stop:,} files, {size_bytes / 1e6:,.0f} MB ...")
    return size_bytes


def bare_mb_per_s_core(table: Table, contract: Contract, file_rows: int) -> float:
    """Return what one core makes of such files without a store, a table or a commit: read, sorted, written once.

    MB of the small files, as they would lie in the store, per second of processor time.
    """
    made = [_encoded(_rows(table, contract, number, file_rows)) for number in range(BARE_FILES)]
    began_s = time.thread_time()
    rows = pa.concat_tables(pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False) for data in made)
    keys = [(name, "ascending") for name in contract.sort_fields]
    _encoded(rows.take(pc.sort_indices(rows, sort_keys=keys)))
    return sum(map(len, made)) / 1e6 / (time.thread_time() - began_s)


def _encoded(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return sink.getvalue()


def metadata_versions(table: Table) -> list[int]:
    """Return the version of every metadata file in the store; one that occurs twice was written for nothing once."""
    files = table.io
    assert isinstance(files, PyArrowFileIO)
    scheme, netloc, root = PyArrowFileIO.parse_location(table.location(), table.properties)
    listed = files.fs_by_scheme(scheme, netloc).get_file_info(FileSelector(f"{root}/metadata"))
    names = [info.base_name for info in listed if info.base_name.endswith(".metadata.json")]
    return sorted(int(name.partition("-")[0]) for name in names)


def _write(table: Table, contract: Contract, number: int, file_rows: int) -> DataFile:
    batches = _rows(table, contract, number, file_rows).to_batches()
    task = WriteTask(write_uuid=uuid4(), task_id=0, schema=table.schema(), record_batches=batches)
    (file,) = write_file(table.io, table.metadata, iter([task]))
    file.spec_id = table.spec().spec_id
    return file


def _rows(table: Table, contract: Contract, number: int, file_rows: int) -> pa.Table:
    seqs = np.arange(number * file_rows, (number + 1) * file_rows, dtype=np.int64)
    system = {
        "origin": pa.array([ORIGIN] * file_rows),
        "epoch": pa.array(np.full(file_rows, EPOCH, dtype=np.int64)),
        "seq": pa.array(seqs),
        "contract_version": pa.array([contract.version] * file_rows),
        "sealed_at": pa.array(workload.START_US + seqs),
    }
    own = workload.rows(contract, seqs)
    columns = []
    schema = table.schema().as_arrow()
    for field in schema:
        values = system[field.name] if field.name in system else own.column(field.name).combine_chunks()
        columns.append(values.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _append(table: Table, files: list[DataFile]) -> None:
    for _ in range(TRIES_MAX):
        try:
            with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
                for file in files:
                    append.append_data_file(file)
            return
        except CommitFailedException:
            table.refresh()
    raise OperatorMustActError(f"table {'.'.join(table.name())}: other writers won {TRIES_MAX} times in a row")
