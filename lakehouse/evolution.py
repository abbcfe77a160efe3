"""A table follows its contract: the newest version's fields by id, in one commit that replaces schema and mapping.

1. plan       pure: from the table's schema and its mapping (`lakehouse.layout`) to those that a version wants. Nothing
              when the table follows it already. A version below the one that is followed undoes nothing: it gets
              columns for what only it says, and no more.
2. commit     schema, mapping and properties at once, against exactly the metadata that was planned on. Conflict:
              nothing happened, look again and plan anew. A lost answer: whoever opens the table again looks; where it
              has landed, nothing is planned.

What becomes of a field by its id:

| change                             | column                                                                     |
| ---------------------------------- | -------------------------------------------------------------------------- |
| added, or back after it was dropped | a new one, null in older rows                                              |
| renamed, moved                      | the same, under its new name and place                                     |
| int to long, float to double        | the same, widened; the other way it stays as wide as it is                 |
| another type or unit                | a new one under the field's name; the one before becomes `NAME__vMAJOR`    |
| dropped                             | gone, with the columns of its older meanings                               |

Columns of a contract's own allow nulls, whatever the newest version requires: rows of another version, which the row
checks have let pass by their own rules, must never make a file that cannot be written.
"""

import logging
from typing import Final

from msgspec import Struct
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import (
    AddSchemaUpdate,
    AssertCurrentSchemaId,
    RemovePropertiesUpdate,
    RemoveSchemasUpdate,
    SetCurrentSchemaUpdate,
    SetPropertiesUpdate,
    TableUpdate,
)
from pyiceberg.types import NestedField

from contracts.contract import Contract
from lakehouse.column_plan import NEVER, adopted, column_of, free_name, next_columns, next_fields, steps_between
from lakehouse.errors import CommitConflictError
from lakehouse.layout import COLUMNS_PROPERTY, Columns, Layout, decode_columns, encode_columns, lacking
from lakehouse.schema import ICEBERG_TYPES, arrow_schema
from lakehouse.tables import METRICS_PREFIX, PERSONAL, PERSONAL_PROPERTY, table_properties
from lakehouse.transactions import LeanTransaction

# Tries of one change. Ingest commits to a table four times a second and a change takes about as long as such a commit.
EVOLVE_TRIES_MAX: Final = 20
FORMAT: Final = "format-version"  # given when a table is made; not a property of the table that is there

_log = logging.getLogger(__name__)


class Evolution(Struct, frozen=True):
    """What one commit does: the fields of the next schema, the properties to set and to remove, and a line per step."""

    fields: tuple[NestedField, ...]
    set: dict[str, str]
    remove: tuple[str, ...]
    steps: tuple[str, ...]


def follow(table: Table, contract: Contract, leave: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Make a table follow a version of its contract; return what was done to its columns.

    `leave`: properties that are not set.

    Raises TableConflictError when a person must act, CommitConflictError when other writers won every time.
    """
    for _ in range(EVOLVE_TRIES_MAX):
        planned = plan(table.metadata, contract)
        if planned is None:
            return ()
        try:
            _commit(table, planned, leave)
        except CommitFailedException as conflict:
            _log.info("columns of %s: moved by another writer, looking again: %s", contract.table, conflict)
            table.refresh()
        else:
            for step in planned.steps:
                _log.info("table %s, contract version %s: %s", contract.table, contract.version, step)
            return planned.steps
    raise CommitConflictError(
        f"columns of {contract.table} for version {contract.version}: other writers won {EVOLVE_TRIES_MAX} times"
    )


def layout_of(metadata: TableMetadata) -> Layout:
    """Return what a table's columns mean. Raises TableConflictError."""
    schema = metadata.schema()
    stated = metadata.properties.get(COLUMNS_PROPERTY)
    columns = Columns(NEVER, {}) if stated is None else decode_columns(stated, metadata.location)
    return Layout(columns, arrow_schema(schema))


def plan(metadata: TableMetadata, contract: Contract) -> Evolution | None:
    """Step 1. Raises TableConflictError."""
    schema = metadata.schema()
    stated = metadata.properties.get(COLUMNS_PROPERTY)
    present = adopted(schema, contract) if stated is None else decode_columns(stated, contract.table)
    if stated is not None and contract.number < present.number:
        return _beside(metadata, present, contract)
    wanted = next_columns(schema, present, contract, metadata.last_column_id)
    fields = next_fields(metadata, present, wanted, contract)
    properties = {k: v for k, v in table_properties(contract).items() if k != FORMAT}
    properties |= _personal(metadata, fields, wanted, contract)
    properties[COLUMNS_PROPERTY] = encode_columns(wanted)
    steps = steps_between(schema, fields)
    changed = {name: value for name, value in properties.items() if metadata.properties.get(name) != value}
    stale = tuple(name for name in metadata.properties if name.startswith(METRICS_PREFIX) and name not in properties)
    if not changed and not stale and fields == schema.fields:
        return None
    return Evolution(fields, changed, stale, steps)


def _beside(metadata: TableMetadata, present: Columns, contract: Contract) -> Evolution | None:
    """Plan for a version below the one that is followed: only columns for what nobody has said since.

    It was published late, or never while anybody looked.
    """
    schema, last_id = metadata.schema(), metadata.last_column_id
    fields, added, personal = dict(present.fields), list[NestedField](), _names(metadata)
    taken = {column.name for column in schema.fields}
    for field in lacking(contract, present):
        last_id += 1
        name = free_name(f"{field.name}__v{contract.number[0]}", taken)
        taken.add(name)
        *before, newest = present.fields[field.id]
        fields[field.id] = (*before, column_of(field, last_id), newest)
        doc = f"{field.name} as version {contract.version} said it."
        added.append(
            NestedField(field_id=last_id, name=name, field_type=ICEBERG_TYPES[field.type], required=False, doc=doc)
        )
        if field.classification == PERSONAL or schema.find_column_name(newest.column_id) in personal:
            personal.append(name)
    if not added:
        return None
    wanted = (*schema.fields, *added)
    stated = {COLUMNS_PROPERTY: encode_columns(Columns(present.version, fields)), PERSONAL_PROPERTY: ",".join(personal)}
    stated |= {f"{METRICS_PREFIX}{column.name}": "counts" for column in added if column.name in personal}
    return Evolution(wanted, stated, (), steps_between(schema, wanted))


def _names(metadata: TableMetadata) -> list[str]:
    """Return the columns that may name a person."""
    return [name for name in metadata.properties.get(PERSONAL_PROPERTY, "").split(",") if name]


def _personal(
    metadata: TableMetadata, fields: tuple[NestedField, ...], wanted: Columns, contract: Contract
) -> dict[str, str]:
    """Return the properties of columns that may name a person, those of older meanings too: erasure looks there."""
    named = set(_names(metadata))
    before = {column.field_id for column in metadata.schema().fields if column.name in named}
    newest = {wanted.fields[field.id][-1].column_id for field in contract.fields}
    stated = {c.column_id for f in contract.fields if f.classification == PERSONAL for c in wanted.fields[f.id]}
    found = [c for c in fields if c.field_id in stated or (c.field_id in before and c.field_id not in newest)]
    older = {f"{METRICS_PREFIX}{column.name}": "counts" for column in found if column.field_id not in newest}
    return {PERSONAL_PROPERTY: ",".join(column.name for column in found), **older}


def _commit(table: Table, planned: Evolution, leave: frozenset[str]) -> None:
    """Step 2."""
    metadata = table.metadata
    updates: list[TableUpdate] = []
    if planned.fields != metadata.schema().fields:
        # Numbers only grow: a schema of the same fields that was there before is not taken up again, so that a number
        # which went with its last snapshot never names another schema.
        number = max(schema.schema_id for schema in metadata.schemas) + 1
        updates += [
            AddSchemaUpdate(schema=Schema(*planned.fields, schema_id=number)),
            SetCurrentSchemaUpdate.model_validate({"schema-id": -1}),
        ]
        if forgotten := _unread(metadata):
            updates.append(RemoveSchemasUpdate.model_validate({"schema-ids": forgotten}))
    if planned.remove:
        updates.append(RemovePropertiesUpdate(removals=list(planned.remove)))
    if stated := {name: value for name, value in planned.set.items() if name not in leave}:
        updates.append(SetPropertiesUpdate(updates=stated))
    if not updates:
        return
    unmoved = AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id})
    transaction = LeanTransaction(table)
    transaction._apply(tuple(updates), (unmoved,))
    transaction.commit_transaction()


def _unread(metadata: TableMetadata) -> list[int]:
    """Return the schemas that no kept snapshot is read by: every commit would copy them for ever."""
    read = {snapshot.schema_id for snapshot in metadata.snapshots} | {metadata.current_schema_id}
    return [schema.schema_id for schema in metadata.schemas if schema.schema_id not in read]
