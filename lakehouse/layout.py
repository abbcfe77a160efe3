"""Which columns of a table hold which field of its contract, whatever they are called. Pure.

A field keeps its id for ever, and so does a column of a table. The table property COLUMNS_PROPERTY says which belong
together, in one commit with the schema that it is about: a reader of the metadata has both or none, they survive
whatever rewrites the table's files, and a table that is registered anew from its metadata file brings them along.

A field has one column for each *meaning* that it has had: another kind of type or another unit is another meaning. The
last of them is the one in force; it alone has the field's name.
"""

from typing import Final

import msgspec
import pyarrow as pa
from msgspec import Struct

from contracts.contract import Contract, Conversion, Field, FieldType, version_number
from contracts.evolution import family, unit_of
from lakehouse.errors import SchemaBehindError, TableConflictError

COLUMNS_PROPERTY: Final = "fieldlake.columns"  # table property: JSON of `Columns`
FIELD_ID: Final = b"PARQUET:field_id"  # key of a column's id in Arrow's metadata, as Parquet has it


class Column(Struct, frozen=True, array_like=True):
    """One meaning of a field. `unit` None: no version has stated one. `conversions`: into this column's unit."""

    column_id: int
    type: FieldType
    unit: str | None = None
    conversions: tuple[Conversion, ...] = ()


class Columns(Struct, frozen=True):
    """The columns of every field, the one in force last, as the contract's newest version wants them."""

    version: str
    fields: dict[int, tuple[Column, ...]]

    @property
    def number(self) -> tuple[int, int, int]:
        """The version in the order of versions."""
        return version_number(self.version)


class Layout(Struct, frozen=True):
    """What a table's columns mean, and their names, types and ids: `schema` has the id of each under FIELD_ID."""

    columns: Columns
    schema: pa.Schema


class Landing(Struct, frozen=True):
    """Where the values of one field of one version go: its own column, and the one in force when that is another."""

    field: Field
    own: Column
    newest: Column


def encode_columns(columns: Columns) -> str:
    """Return the table property."""
    return msgspec.json.encode(columns).decode()


def decode_columns(text: str, table: str) -> Columns:
    """Parse the table property. Raises TableConflictError."""
    try:
        return msgspec.json.decode(text, type=Columns)
    except msgspec.DecodeError as error:
        raise TableConflictError(
            f"table {table}: its property {COLUMNS_PROPERTY} cannot be read: {error}: restore it from an older "
            "metadata file of the table"
        ) from error


def meaning(columns: tuple[Column, ...], field: Field) -> Column | None:
    """Return the column that holds what a version says of a field, None when no column has that meaning.

    A unit that only one of the two sides states is taken for the other's: it is the oldest column then.
    """
    kin = [column for column in columns if family(column.type) is family(field.type)]
    unit = unit_of(field)
    exact = [column for column in kin if column.unit == unit]
    if exact:
        return exact[-1]
    loose = [column for column in kin if unit is None or column.unit is None]
    return loose[0] if loose and not field.conversions else None


def landings(contract: Contract, columns: Columns) -> tuple[Landing, ...]:
    """Return where the fields of a version go. A field that a newer version has dropped goes nowhere.

    Raises SchemaBehindError when the table does not follow the version yet: what it says would be lost.
    """
    if contract.number > columns.number or lacking(contract, columns):
        raise SchemaBehindError(
            f"rows of contract {contract.id} {contract.version}: the table's columns are known as of "
            f"{columns.version}: the table is opened again"
        )
    found: list[Landing] = []
    for field in contract.fields:
        of_field = columns.fields.get(field.id, ())
        own = meaning(of_field, field)
        if own is not None:
            found.append(Landing(field, own, of_field[-1]))
    return tuple(found)


def lacking(contract: Contract, columns: Columns) -> tuple[Field, ...]:
    """Return the fields of a version that the table has, but not with the meaning that they have in that version."""
    return tuple(
        field
        for field in contract.fields
        if field.id in columns.fields and meaning(columns.fields[field.id], field) is None
    )


def ids(schema: pa.Schema) -> dict[int, int]:
    """Return the position of each column by its id; columns without one are left out."""
    return {int(field.metadata[FIELD_ID]): at for at, field in enumerate(schema) if FIELD_ID in (field.metadata or {})}
