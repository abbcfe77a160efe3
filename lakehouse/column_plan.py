"""Which columns a contract's version wants of a table, by the ids of its fields: see `lakehouse.evolution`. Pure."""

from typing import Final

from msgspec.structs import replace
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import NestedField

from contracts.contract import SYSTEM_COLUMNS, Contract, Field
from contracts.evolution import family, unit_of, wider
from lakehouse.errors import TableConflictError
from lakehouse.layout import Column, Columns, meaning
from lakehouse.schema import ICEBERG_TYPES

NEVER: Final = "0.0.0"  # the version that a table follows whose columns nobody has noted down
_FIELD_TYPES: Final = {str(kind): name for name, kind in ICEBERG_TYPES.items()}


def first_columns(contract: Contract) -> Columns:
    """Return the columns of a new table, numbered as a catalog does: the system's first, then the contract's."""
    start = len(SYSTEM_COLUMNS) + 1
    return Columns(contract.version, {f.id: (column_of(f, at),) for at, f in enumerate(contract.fields, start=start)})


def adopted(schema: Schema, contract: Contract) -> Columns:
    """Return the columns of a table that was made before they were noted down: those with the names of the fields."""
    found: dict[int, tuple[Column, ...]] = {}
    for field in contract.fields:
        column = next((c for c in schema.fields if c.name == field.name), None)
        if column is not None and (kind := _FIELD_TYPES.get(str(column.field_type))) is not None:
            found[field.id] = (Column(column.field_id, kind),)
    return Columns(NEVER, found)


def next_columns(schema: Schema, present: Columns, contract: Contract, last_id: int) -> Columns:
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
            fields[field.id] = (*known, column_of(field, last_id))
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


def column_of(field: Field, column_id: int) -> Column:
    """Return the column that a field of today has under an id."""
    return Column(column_id, field.type, unit_of(field), field.conversions)


def next_fields(
    metadata: TableMetadata, present: Columns, wanted: Columns, contract: Contract
) -> tuple[NestedField, ...]:
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
            older.append(_shadow(column, free_name(name, taken), field.name, present.version if was_newest else None))
            taken.add(older[-1].name)
    kept = {column.column_id for columns in wanted.fields.values() for column in columns}
    for column in schema.fields:
        if column.field_id in parting & ours - kept:
            name = free_name(f"{column.name}__v{present.number[0]}", taken)
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


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it when a column has it already."""
    number = 1
    while (found := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return found


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


def steps_between(schema: Schema, fields: tuple[NestedField, ...]) -> tuple[str, ...]:
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
