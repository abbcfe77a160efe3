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
from msgspec.structs import replace
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

from contracts.contract import SYSTEM_COLUMNS, Contract, Field
from contracts.evolution import family, unit_of, wider
from lakehouse.errors import CommitConflictError, TableConflictError
from lakehouse.layout import COLUMNS_PROPERTY, Column, Columns, Layout, decode_columns, encode_columns, lacking, meaning
from lakehouse.schema import ICEBERG_TYPES, arrow_schema
from lakehouse.tables import METRICS_PREFIX, PERSONAL, PERSONAL_PROPERTY, table_properties
from lakehouse.transactions import LeanTransaction

# Tries of one change. Ingest commits to a table four times a second and a change takes about as long as such a commit.
EVOLVE_TRIES_MAX: Final = 20
NEVER: Final = "0.0.0"  # the version that a table follows whose columns nobody has noted down
FORMAT: Final = "format-version"  # given when a table is made; not a property of the table that is there

_FIELD_TYPES: Final = {str(kind): name for name, kind in ICEBERG_TYPES.items()}
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


def first_columns(contract: Contract) -> Columns:
    """Return the columns of a new table, numbered as a catalog does: the system's first, then the contract's."""
    start = len(SYSTEM_COLUMNS) + 1
    return Columns(contract.version, {f.id: (_column(f, at),) for at, f in enumerate(contract.fields, start=start)})


def plan(metadata: TableMetadata, contract: Contract) -> Evolution | None:
    """Step 1. Raises TableConflictError."""
    schema = metadata.schema()
    stated = metadata.properties.get(COLUMNS_PROPERTY)
    present = _adopted(schema, contract) if stated is None else decode_columns(stated, contract.table)
    if stated is not None and contract.number < present.number:
        return _beside(metadata, present, contract)
    wanted = _next_columns(schema, present, contract, metadata.last_column_id)
    fields = _fields(metadata, present, wanted, contract)
    properties = {k: v for k, v in table_properties(contract).items() if k != FORMAT}
    properties |= _personal(metadata, fields, wanted, contract)
    properties[COLUMNS_PROPERTY] = encode_columns(wanted)
    steps = _steps(schema, fields)
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
        name = _free(f"{field.name}__v{contract.number[0]}", taken)
        taken.add(name)
        *before, newest = present.fields[field.id]
        fields[field.id] = (*before, _column(field, last_id), newest)
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
    return Evolution(wanted, stated, (), _steps(schema, wanted))


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


def renumbered(columns: Columns, old: Schema, new: Schema) -> Columns:
    """Return the columns of a table that was made anew under the same names, with the column ids that it was given."""
    ids = {column.field_id: new.find_field(column.name).field_id for column in old.fields}
    return Columns(
        columns.version,
        {
            at: tuple(replace(column, column_id=ids[column.column_id]) for column in known if column.column_id in ids)
            for at, known in columns.fields.items()
        },
    )


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


def _adopted(schema: Schema, contract: Contract) -> Columns:
    """Return the columns of a table that was made before they were noted down: those with the names of the fields."""
    found: dict[int, tuple[Column, ...]] = {}
    for field in contract.fields:
        column = next((c for c in schema.fields if c.name == field.name), None)
        if column is not None and (kind := _FIELD_TYPES.get(str(column.field_type))) is not None:
            found[field.id] = (Column(column.field_id, kind),)
    return Columns(NEVER, found)


def _next_columns(schema: Schema, present: Columns, contract: Contract, last_id: int) -> Columns:
    """Return the columns that a version wants; `last_id` is the highest column id that was ever given."""
    types = {column.field_id: _FIELD_TYPES.get(str(column.field_type)) for column in schema.fields}
    fields: dict[int, tuple[Column, ...]] = {}
    for field in contract.fields:
        # A column that somebody has dropped by hand is gone, and one that somebody has widened is as wide.
        known = tuple(
            replace(column, type=found)
            for column in present.fields.get(field.id, ())
            if (found := types.get(column.column_id)) is not None and family(found) is family(column.type)
        )
        same = meaning(known, field)
        if same is None:
            _check_unit(known, field, contract)
            last_id += 1
            fields[field.id] = (*known, _column(field, last_id))
        else:
            unit = same.unit if unit_of(field) is None else unit_of(field)
            newest = Column(same.column_id, wider(same.type, field.type), unit, field.conversions)
            fields[field.id] = (*(column for column in known if column is not same), newest)
    return Columns(contract.version, fields)


def _check_unit(known: tuple[Column, ...], field: Field, contract: Contract) -> None:
    """A second column of the same type is of another unit: without a conversion nobody could tell what is in which."""
    units = {column.unit for column in known if family(column.type) is family(field.type)}
    if open_units := units - {None} - {conversion.unit for conversion in field.conversions}:
        raise TableConflictError(
            f"table {contract.table}: column {field.name} is in {', '.join(sorted(map(str, open_units)))}, contract "
            f"{contract.id} {contract.version} says {field.unit}: publish it with the conversion, as a new version"
        )


def _column(field: Field, column_id: int) -> Column:
    return Column(column_id, field.type, unit_of(field), field.conversions)


def _fields(metadata: TableMetadata, present: Columns, wanted: Columns, contract: Contract) -> tuple[NestedField, ...]:
    """Return the next schema's fields: the system's, the contract's in its order, older meanings, what is not ours.

    A dropped field's column by which files are parted stays as an older meaning does: their partitions are read by it.
    """
    schema = metadata.schema()
    parting = {part.source_id for spec in metadata.partition_specs for part in spec.fields}
    by_id = {column.field_id: column for column in schema.fields}
    ours = {c.column_id for columns in (present, wanted) for known in columns.fields.values() for c in known}
    system = [column for column in schema.fields if column.name in SYSTEM_COLUMNS]
    own = [_own(field, wanted.fields[field.id][-1]) for field in contract.fields]
    foreign = [c for c in schema.fields if c.field_id not in ours and c.name not in SYSTEM_COLUMNS]
    taken = {column.name for column in (*system, *own)}
    for column in foreign:
        if column.name in taken:
            raise TableConflictError(
                f"table {contract.table}: contract {contract.id} {contract.version} wants a column {column.name}, and "
                "there is one that no version of the contract made: rename or drop that one"
            )
        taken.add(column.name)
    older: list[NestedField] = []
    for field in contract.fields:
        *before, _ = wanted.fields[field.id]
        for column in [by_id[c.column_id] for c in before]:
            was_newest = present.fields[field.id][-1].column_id == column.field_id
            name = f"{column.name}__v{present.number[0]}" if was_newest else column.name
            older.append(_shadow(column, _free(name, taken), field.name, present.version if was_newest else None))
            taken.add(older[-1].name)
    kept = {column.column_id for columns in wanted.fields.values() for column in columns}
    for column in schema.fields:
        if column.field_id in parting & ours - kept:
            name = _free(f"{column.name}__v{present.number[0]}", taken)
            older.append(_shadow(column, name, column.name, present.version))
            taken.add(name)
    return (*system, *own, *older, *foreign)


def _own(field: Field, column: Column) -> NestedField:
    return NestedField(
        field_id=column.column_id,
        name=field.name,
        field_type=ICEBERG_TYPES[column.type],
        required=False,
        doc=field.description or None,
    )


def _shadow(column: NestedField, name: str, said: str, until: str | None) -> NestedField:
    doc = column.doc if until is None else f"{said} as versions up to {until} said it."
    return NestedField(field_id=column.field_id, name=name, field_type=column.field_type, required=False, doc=doc)


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it when a column has it already."""
    number = 1
    while (found := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return found


def _steps(schema: Schema, fields: tuple[NestedField, ...]) -> tuple[str, ...]:
    """Return what changes between two schemas, a line each."""
    before = {column.field_id: column for column in schema.fields}
    after = {column.field_id for column in fields}
    steps = [f"drops {column.name}" for column in schema.fields if column.field_id not in after]
    for column in fields:
        was = before.get(column.field_id)
        if was is None:
            steps.append(f"adds {column.name} {column.field_type}")
            continue
        if was.name != column.name:
            steps.append(f"renames {was.name} to {column.name}")
        if was.field_type != column.field_type:
            steps.append(f"widens {column.name} from {was.field_type} to {column.field_type}")
        if was.required and not column.required:
            steps.append(f"lets {column.name} be null")
    kept = [column.field_id for column in schema.fields if column.field_id in after]
    if kept != [column.field_id for column in fields if column.field_id in before]:
        steps.append("puts columns into another order")
    return tuple(steps)
