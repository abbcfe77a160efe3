"""The schemas that follow from a contract: payload (Arrow), table (Arrow) and table (Iceberg). Pure."""

from typing import Final

import pyarrow as pa
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.schema import Schema
from pyiceberg.types import (
    BooleanType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from contracts.contract import SYSTEM_COLUMNS, Contract, FieldType
from contracts.wire import columns

ARROW_TYPES: Final[dict[FieldType, pa.DataType]] = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
}

ICEBERG_TYPES: Final[dict[FieldType, IcebergType]] = {
    FieldType.STRING: StringType(),
    FieldType.INT: IntegerType(),
    FieldType.LONG: LongType(),
    FieldType.FLOAT: FloatType(),
    FieldType.DOUBLE: DoubleType(),
    FieldType.BOOLEAN: BooleanType(),
    FieldType.TIMESTAMPTZ: TimestamptzType(),
}


def wire_schema(contract: Contract) -> pa.Schema:
    """Return the schema of a payload. All of it is nullable: a null where none may be is for the row checks to find."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.type]) for column in columns(contract)])


def schema_message(contract: Contract) -> bytes:
    """Return the IPC schema message behind which the payloads of a contract concatenate into a stream."""
    message: bytes = wire_schema(contract).serialize().to_pybytes()
    return message


def table_schema(contract: Contract) -> pa.Schema:
    """Return the schema of rows as they are written: the system columns, then the contract's fields."""
    system = [pa.field(name, ARROW_TYPES[kind], nullable=False) for name, kind in SYSTEM_COLUMNS.items()]
    own = [pa.field(f.name, ARROW_TYPES[f.type], nullable=not f.required) for f in contract.fields]
    return pa.schema([*system, *own])


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return a table's columns as Arrow writes them, each with its column id in the metadata."""
    # The library makes all text large: twice the offsets, for columns of two thousand million characters.
    small = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
    whole: pa.Schema = schema_to_pyarrow(schema)
    return pa.schema([field.with_type(small.get(field.type, field.type)) for field in whole])


def iceberg_schema(contract: Contract) -> Schema:
    """Return the schema of a contract's new table. The catalog assigns final column ids in this order.

    The contract's own columns allow nulls whatever it requires, see `lakehouse.evolution`.
    """
    fields = [
        NestedField(field_id=at, name=name, field_type=ICEBERG_TYPES[kind], required=True)
        for at, (name, kind) in enumerate(SYSTEM_COLUMNS.items(), start=1)
    ]
    fields += [
        NestedField(
            field_id=at, name=f.name, field_type=ICEBERG_TYPES[f.type], required=False, doc=f.description or None
        )
        for at, f in enumerate(contract.fields, start=len(fields) + 1)
    ]
    return Schema(*fields)
