"""Rows of any version of a contract as rows of its table, by field id and never by name. Pure.

A version's value goes to the column that has its meaning, and also, converted, to the column in force when that is
another; so the column under the field's name has whatever can be said in it, and the older column what was sent.
Every column of a landed row carries its id (`lakehouse.layout.FIELD_ID`): a rename between here and the commit, by
whomever, moves the name and not the value.
"""

import pyarrow as pa
import pyarrow.compute as pc

from contracts.contract import SYSTEM_COLUMNS, Contract
from lakehouse.layout import Layout, ids, landings
from lakehouse.schema import ARROW_TYPES
from lakehouse.upcast import upcast


def land(rows: pa.Table, contract: Contract, layout: Layout) -> pa.Table:
    """Return rows, named as in a version of the contract, with the table's columns; those without a value are null.

    All versions land in the same schema, so their rows concatenate. Raises SchemaBehindError when the version is newer
    than the layout.
    """
    found = {name: rows.column(name) for name in SYSTEM_COLUMNS}
    at_id: dict[int, pa.ChunkedArray] = {}
    for landing in landings(contract, layout.columns):
        values = rows.column(landing.field.name)
        at_id[landing.own.column_id] = values
        if landing.newest.column_id != landing.own.column_id:
            at_id[landing.newest.column_id] = upcast(values, landing.own, landing.newest)
    for column_id, position in ids(layout.schema).items():
        name = layout.schema[position].name
        if name in SYSTEM_COLUMNS:
            at_id[column_id] = found[name]
    return _in_columns(at_id, layout.schema, rows.num_rows)


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return rows in the columns of a schema: by id when they carry ids, else by name; what is missing is null.

    A column of the rows that the schema no longer has is left out.
    """
    if rows.schema.equals(schema, check_metadata=True):
        return rows
    by_id = ids(rows.schema)
    if len(by_id) == rows.num_columns and by_id:
        return _in_columns({at: rows.column(position) for at, position in by_id.items()}, schema, rows.num_rows)
    arrays = [
        rows.column(field.name).cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def backfilled(rows: pa.Table, layout: Layout) -> pa.Table:
    """Return rows of the table, named as its columns are, with what older meanings say of empty newest ones.

    For who writes old rows anew anyway: history before a change of type then has its values under the field's name.
    """
    names = {at: layout.schema[position].name for at, position in ids(layout.schema).items()}
    for columns in layout.columns.fields.values():
        *older, newest = columns
        name = names.get(newest.column_id)
        for own in reversed(older):
            if name is None or own.column_id not in names:
                continue  # somebody has dropped it by hand
            at = rows.schema.get_field_index(name)
            said = rows.column(names[own.column_id]).cast(ARROW_TYPES[own.type])
            filled = pc.coalesce(rows.column(name), upcast(said, own, newest).cast(rows.schema[at].type))
            rows = rows.set_column(at, rows.schema[at], filled)
    return rows


def _in_columns(at_id: dict[int, pa.ChunkedArray], schema: pa.Schema, count: int) -> pa.Table:
    by_position = {position: column_id for column_id, position in ids(schema).items()}
    arrays = []
    for position, field in enumerate(schema):
        values = at_id.get(by_position.get(position, -1))
        arrays.append(pa.nulls(count, field.type) if values is None else values.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
