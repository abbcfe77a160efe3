"""Tables of other writers: their right rows, or an error that says what is not supported and where. Never wrong rows.

The library reads a great deal, but says nothing of some things that it does not follow, and a table's metadata is
input: it may ask for anything. So the metadata is looked at first as the JSON that it is, everything that is live is
listed from the manifests, and only then is a file opened:

- equality deletes are applied here (by column values, nulls equal), position deletes by the library;
- a column that a file lacks is the partition's value, the default of the schema or null, in this order;
- a file that has not as many rows as its manifest says is refused: it was cut short or replaced;
- a table's own properties choose no class and no address to read with.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct
from pydantic import ValidationError
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import ResolveError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFile, PyArrowFileIO, pyarrow_to_schema, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import NestedField

from lakehouse.errors import BrokenTableError, UnsupportedTableError
from lakehouse.foreign_limits import check_file, check_metadata
from lakehouse.metadata_files import candidates_in, newest, read_metadata

METADATA_ENDING: Final = ".metadata.json"
# What opening and decoding of files of another writer may raise: none of them says anything about our own process.
UNREADABLE: Final = (OSError, pa.ArrowException, ResolveError, ValueError, TypeError, KeyError, IndexError, EOFError)


class RootedFileIO(PyArrowFileIO):
    """Opens relative locations below a folder: some writers name their files relative to where they ran."""

    def __init__(self, properties: dict[str, str], root: str = "") -> None:
        super().__init__(properties)
        self._root = root

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to be read."""
        relative = "://" not in location and not location.startswith(("/", "file:"))
        return super().new_input(f"{self._root.rstrip('/')}/{location}" if relative and self._root else location)


class Live(Struct, frozen=True):
    """A file of the current snapshot and the sequence number of the commit that added it."""

    file: DataFile
    sequence: int


class ForeignTable:
    """A table read from its metadata file."""

    def __init__(self, location: str, io: PyArrowFileIO) -> None:
        """Open the table whose metadata file lies at `location`. Raises BrokenTableError and UnsupportedTableError."""
        document = read_metadata(io, location)
        check_metadata(location, document)
        try:
            metadata = FromInputFile.table_metadata(io.new_input(location))
        except (*UNREADABLE, ValidationError) as error:
            raise UnsupportedTableError(
                f"metadata file {location}: expected Iceberg table metadata: {error}"
            ) from error
        self._table = _table(metadata, location, io)

    @classmethod
    def of(cls, metadata: TableMetadata, location: str, io: PyArrowFileIO) -> "ForeignTable":
        """Return a table whose metadata is at hand already and has been checked."""
        made = cls.__new__(cls)
        made._table = _table(metadata, location, io)
        return made

    @property
    def metadata(self) -> TableMetadata:
        """The table's metadata."""
        return self._table.metadata

    @property
    def schema(self) -> pa.Schema:
        """The columns of the rows that `tables` returns."""
        return schema_to_pyarrow(self._table.schema(), include_field_ids=False)

    @property
    def current_snapshot_id(self) -> int | None:
        """The snapshot that is read, None when the table has none."""
        return self._table.metadata.current_snapshot_id

    def files(self) -> list[str]:
        """Return the locations of all live files, of deletes too. Raises as `tables` does."""
        return [one.file.file_path for one in self._live()]

    def tables(self, broken: list[BrokenTableError] | None = None) -> Iterator[pa.Table]:
        """Return the live rows, one table per data file. Raises BrokenTableError and UnsupportedTableError.

        What is unsupported shows before the first row, what is broken when its file is reached; `broken` collects the
        latter instead, so that what is left can be saved.
        """
        live = self._live()
        data = [one for one in live if one.file.content == DataFileContent.DATA]
        deletes = [one for one in live if one.file.content != DataFileContent.DATA]
        for one in data:
            try:
                rows = self._rows(one, deletes)
            except BrokenTableError as error:
                if broken is None:
                    raise
                broken.append(error)
            else:
                yield rows

    def to_arrow(self) -> pa.Table:
        """Return all live rows."""
        found = list(self.tables())
        return pa.concat_tables(found) if found else self.schema.empty_table()

    def _live(self) -> list[Live]:
        snapshot = self._table.current_snapshot()
        if snapshot is None:
            return []
        try:
            found = [
                Live(entry.data_file, entry.sequence_number or 0)
                for manifest in snapshot.manifests(self._table.io)
                for entry in manifest.fetch_manifest_entry(self._table.io, discard_deleted=True)
            ]
        except UNREADABLE as error:
            raise BrokenTableError(
                f"snapshot {snapshot.snapshot_id}: expected its manifests, found: {error}: restore the files, or read "
                "an older metadata file"
            ) from error
        for one in found:
            check_file(one.file)
        return found

    def _rows(self, data: Live, deletes: list[Live]) -> pa.Table:
        mine = [one for one in deletes if _applies(one, data, self._is_global(one.file))]
        positions = {one.file for one in mine if one.file.content == DataFileContent.POSITION_DELETES}
        equality = [one.file for one in mine if one.file.content == DataFileContent.EQUALITY_DELETES]
        hidden = self._hidden([field_id for file in equality for field_id in file.equality_ids or ()])
        names = [field.name for field in self._table.schema().fields]
        rows = self._read(data.file, Schema(*self._table.schema().fields, *hidden.values()), positions)
        for file in equality:
            fields = [hidden.get(i) or self._table.schema().find_field(i) for i in file.equality_ids or ()]
            gone = self._read(file, Schema(*fields), set())
            rows = rows.filter(pa.array(~matches(rows.select(gone.column_names), gone)))
        return rows.select(names).cast(self.schema)

    def _hidden(self, ids: list[int]) -> dict[int, NestedField]:
        """Return the fields that deletes compare and that are no columns any more, under names that are free."""
        present = {field.field_id for field in self._table.schema().fields}
        found: dict[int, NestedField] = {}
        for field_id in dict.fromkeys(ids):
            if field_id not in present:
                field = self._once_known.get(field_id)
                if field is None:
                    raise UnsupportedTableError(
                        f"equality delete by field {field_id}: expected a column of the table's first level, found none"
                    )
                found[field_id] = field.model_copy(update={"name": f"field-{field_id}", "required": False})
        return found

    @cached_property
    def _once_known(self) -> dict[int, NestedField]:
        """The fields of all schemas that the table ever had, by id; the newest wins."""
        return {field.field_id: field for schema in self._table.metadata.schemas for field in schema.fields}

    def _read(self, file: DataFile, schema: Schema, positions: set[DataFile]) -> pa.Table:
        """Return a file's rows in columns of the schema, without those at deleted positions."""
        try:
            parquet = pq.ParquetFile(self._table.io.new_input(file.file_path).open())
            if parquet.metadata.num_rows != file.record_count:
                raise BrokenTableError(
                    f"file {file.file_path}: its manifest says {file.record_count} rows, it has "
                    f"{parquet.metadata.num_rows}: restore the file"
                )
            inside = pyarrow_to_schema(parquet.schema_arrow, self._table.name_mapping(), format_version=3).field_ids
            stated, absent = self._stated(file), [f for f in schema.fields if f.field_id not in inside]
            constant = {field.name: stated[field.field_id] for field in absent if field.field_id in stated}
            for field in absent:
                if field.required and field.initial_default is None and constant.get(field.name) is None:
                    raise BrokenTableError(f"file {file.file_path}: required column {field.name!r} is not in it")
            stored = Schema(*(field for field in schema.fields if field.name not in constant))
            return self._filled(self._scan(file, stored, positions), schema, constant)
        except UNREADABLE as error:
            raise BrokenTableError(f"file {file.file_path}: expected its rows, found: {error}") from error

    def _scan(self, file: DataFile, schema: Schema, positions: set[DataFile]) -> pa.Table:
        # A file of which no column is wanted still says how many rows there are: any of its columns does.
        scan = ArrowScan(self._table.metadata, self._table.io, schema, AlwaysTrue())
        return scan.to_table([FileScanTask(file, positions)])

    @staticmethod
    def _filled(rows: pa.Table, schema: Schema, constant: Mapping[str, Any]) -> pa.Table:
        types = schema_to_pyarrow(schema, include_field_ids=False)
        columns = [
            pa.repeat(pa.scalar(constant[field.name], field.type), len(rows))
            if field.name in constant
            else rows.column(field.name)
            for field in types
        ]
        return pa.Table.from_arrays(columns, names=types.names)

    def _stated(self, file: DataFile) -> dict[int, Any]:
        """Return what a file's partition says of columns, by field id."""
        spec = self._table.specs()[file.spec_id]
        return {
            field.source_id: file.partition[at]
            for at, field in enumerate(spec.fields)
            if isinstance(field.transform, IdentityTransform)
        }

    def _is_global(self, file: DataFile) -> bool:
        return self._table.specs()[file.spec_id].is_unpartitioned()


def _table(metadata: TableMetadata, location: str, io: PyArrowFileIO) -> Table:
    return Table(("foreign", location), metadata, location, io, NoopCatalog("foreign"))


def open_foreign(location: str, properties: dict[str, str], root: str = "") -> ForeignTable:
    """Open a table by its folder, of which the newest metadata file is taken, or by a metadata file.

    `properties`: what opens the store, as PyIceberg names it. `root`: the folder that relative locations are below.
    """
    io = RootedFileIO(properties, root)
    if METADATA_ENDING in location.rpartition("/")[2]:
        return ForeignTable(location, io)
    found, broken = candidates_in(io, f"{root.rstrip('/')}/{location}" if root and "://" not in location else location)
    if broken:
        raise BrokenTableError(f"metadata file {broken[0]}: expected a JSON object; name the metadata file to read")
    return ForeignTable(newest(found).location, io)


def matches(rows: pa.Table, keys: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows equal one of the keys in all columns; both have the same columns, and nulls are equal."""
    codes = np.zeros(len(rows) + len(keys), dtype=np.int64)
    for name in rows.column_names:
        both = pa.chunked_array([*rows.column(name).chunks, *keys.column(name).chunks], rows.column(name).type)
        if pa.types.is_nested(both.type):
            raise UnsupportedTableError(f"equality delete by column {name}: its type {both.type} is not compared")
        indices = both.combine_chunks().dictionary_encode("encode").indices.to_numpy(zero_copy_only=False)
        _, codes = np.unique(np.stack([codes, indices.astype(np.int64)]), axis=1, return_inverse=True)
    found: np.ndarray[Any, np.dtype[np.bool_]] = np.isin(codes[: len(rows)], codes[len(rows) :])
    return found


def _applies(delete: Live, data: Live, everywhere: bool) -> bool:
    """A delete reaches the files of its partition that were there: with equality those before it, else its own too."""
    equality = delete.file.content == DataFileContent.EQUALITY_DELETES
    if data.sequence > delete.sequence - (1 if equality else 0):
        return False
    if equality and everywhere:
        return True
    return delete.file.spec_id == data.file.spec_id and delete.file.partition == data.file.partition
