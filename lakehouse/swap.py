"""A table's name moved from one metadata file to another, in one transaction of the catalog's database."""

from typing import Any, Final
from uuid import UUID, uuid4

from pyiceberg.catalog.sql import IcebergTables
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.schema import Schema
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.snapshots import MetadataLogEntry
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from lakehouse.catalog import LakeCatalog
from lakehouse.errors import BrokenTableError
from lakehouse.metadata_files import files_in, version_of
from lakehouse.register import default_location, file_io

METADATA_LOGGED: Final = 8  # older metadata files that the first new one names


def pointer_of(catalog: LakeCatalog, table: str) -> str | None:
    """Return the metadata file that the catalog names for a table, None when it does not know the table."""
    namespace, _, name = table.rpartition(".")
    with Session(catalog.engine) as session:
        return session.scalar(
            select(IcebergTables.metadata_location).where(
                IcebergTables.catalog_name == catalog.name,
                IcebergTables.table_namespace == namespace,
                IcebergTables.table_name == name,
            )
        )


def create_beside(
    catalog: LakeCatalog, name: str, location: str, schema: Schema, properties: dict[str, str], table_uuid: UUID | None
) -> Table:
    """Create an empty table in a folder of its own that has, unlike one made by the catalog, a given uuid."""
    metadata = new_table_metadata(
        schema, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, location, dict(properties), table_uuid
    )
    path = f"{location}/metadata/00000-{uuid4()}.metadata.json"
    ToOutputFile.table_metadata(metadata, file_io(catalog).new_output(path), overwrite=True)
    return catalog.register_table(name, path)


def swap(
    catalog: LakeCatalog,
    table: str,
    made: Table,
    old: TableMetadata | None,
    pointer: str | None,
    properties: dict[str, str],
) -> str | None:
    """Give `made` the name `table`, provided that it still points to `pointer`; return the new metadata file.

    That file lies where the catalog puts a table of this name, and says by its `location` where the table is now: who
    looks for the newest metadata after the catalog is lost begins there. Returns None when the name has moved on.
    """
    folder = f"{default_location(catalog, table)}/metadata"
    version = 1 + max(
        _highest(catalog, folder), version_of(pointer or "") or 0, version_of(made.metadata_location) or 0
    )
    location = f"{folder}/{version:05}-{uuid4()}.metadata.json"
    metadata = taken_over(made.metadata, old, pointer, properties)
    ToOutputFile.table_metadata(metadata, file_io(catalog).new_output(location), overwrite=True)
    return location if _move(catalog, table, made, pointer, location) else None


def taken_over(
    made: TableMetadata, old: TableMetadata | None, pointer: str | None, properties: dict[str, str]
) -> TableMetadata:
    """Return a new table's metadata as the successor of the old one's. Pure."""
    before = list(old.metadata_log) if old is not None else []
    if old is not None and pointer is not None:
        entry = {"metadata-file": pointer, "timestamp-ms": old.last_updated_ms}
        before.append(MetadataLogEntry.model_validate(entry))
    own = {name: value for name, value in properties.items() if name != "format-version"}
    changed: dict[str, Any] = {
        "metadata_log": before[-METADATA_LOGGED:],
        "properties": {**made.properties, **own},
    }
    return made.model_copy(update=changed)


def _highest(catalog: LakeCatalog, folder: str) -> int:
    try:
        names = files_in(file_io(catalog), folder)
    except BrokenTableError:
        return -1
    return max((version for name in names if (version := version_of(name)) is not None), default=-1)


def _move(catalog: LakeCatalog, table: str, made: Table, pointer: str | None, location: str) -> bool:
    namespace, _, name = table.rpartition(".")
    own = (IcebergTables.catalog_name == catalog.name, IcebergTables.table_namespace == namespace)
    with Session(catalog.engine) as session:
        if pointer is None:
            session.execute(insert(IcebergTables).values(**catalog._create_table_row(namespace, name, location)))
        else:
            moved = session.connection().execute(
                update(IcebergTables)
                .where(*own, IcebergTables.table_name == name, IcebergTables.metadata_location == pointer)
                .values(metadata_location=location, previous_metadata_location=pointer)
            )
            if moved.rowcount < 1:
                return False
        session.execute(delete(IcebergTables).where(*own, IcebergTables.table_name == made.name()[-1]))
        session.commit()
    return True
