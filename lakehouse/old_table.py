"""What there still is of a table that is rebuilt: its metadata, its newest state, and the rows of its files."""

import logging
from collections.abc import Iterator

import pyarrow as pa
from msgspec import Struct
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table.metadata import TableMetadata

from contracts.contract import Contract
from lakehouse.catalog import LakeCatalog
from lakehouse.errors import BrokenTableError, ForeignTableError
from lakehouse.foreign import UNREADABLE, ForeignTable
from lakehouse.iceberg import state_location
from lakehouse.metadata_files import files_in, read_metadata
from lakehouse.register import default_location, file_io, find
from lakehouse.salvage import loose_rows
from lakehouse.schema import iceberg_schema
from lakehouse.state import Kept, TableState
from lakehouse.state_files import StateReader
from lakehouse.streams import Streams
from lakehouse.swap import pointer_of

_log = logging.getLogger(__name__)


class OldTable(Struct, frozen=True):
    """Where its name points (None: nowhere), the folder of its files, its newest metadata and its state."""

    pointer: str | None
    location: str
    metadata: TableMetadata | None
    state: Kept


def find_old(catalog: LakeCatalog, table: str) -> OldTable:
    """Return what there is of a table; what cannot be read is logged and left out. Errors: those of the store."""
    io: PyArrowFileIO = file_io(catalog)
    pointer, location = pointer_of(catalog, table), default_location(catalog, table)
    try:
        newest = pointer or find(io, location)[0]
        document = read_metadata(io, newest)
        metadata = ForeignTable(newest, io).metadata
        return OldTable(pointer, str(document.get("location", location)), metadata, _state_of(io, metadata))
    except ForeignTableError as error:
        _log.warning("table %s: its metadata is not used: %s", table, error)
        return OldTable(pointer, location, None, _no_state())


def rows_of(io: PyArrowFileIO, old: OldTable, contract: Contract, broken: list[BrokenTableError]) -> Iterator[pa.Table]:
    """Yield the rows of the files: of the live ones, and of all that lie there when nothing says which ones live.

    What gives no rows is added to `broken`. Errors: those of the store.
    """
    if old.metadata is not None:
        try:
            yield from ForeignTable.of(old.metadata, old.pointer or old.location, io).tables(broken)
            return
        except BrokenTableError as error:  # of the manifests: nothing was yielded
            broken.append(error)
    try:
        names = sorted(name for name in files_in(io, f"{old.location}/data") if name.endswith(".parquet"))
    except BrokenTableError as error:
        broken.append(error)
        return
    by_id = old.metadata is not None
    schema = iceberg_schema(contract) if old.metadata is None else old.metadata.schema()
    for name in names:
        try:
            rows, left_out = loose_rows(io, f"{old.location}/data/{name}", schema, by_id)
        except BrokenTableError as error:
            broken.append(error)
            continue
        if left_out:
            broken.append(BrokenTableError(f"file {name}: columns left out: {', '.join(left_out)}"))
        yield rows


def _state_of(io: PyArrowFileIO, metadata: TableMetadata) -> Kept:
    """Return the newest readable state of a table."""
    for snapshot in reversed(metadata.snapshots):
        if (path := state_location(snapshot)) is not None:
            try:
                return StateReader().read(io, path)
            except UNREADABLE as error:
                _log.warning("state %s is not used: %s", path, error)
    return _no_state()


def _no_state() -> Kept:
    return Kept(TableState(), None, Streams())
