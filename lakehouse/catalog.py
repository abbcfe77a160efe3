"""The catalog of tables: one row per table in a SQL database, one compare-and-set per commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import FileIO
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lakehouse.config import CatalogConfig

FILE_IO: Final = "lakehouse.file_io.SmallFileIO"


class LakeCatalog(SqlCatalog):
    """The library's SQL catalog, with a commit that goes by what its caller has last seen of the table.

    1. check      the requirements against the caller's metadata.
    2. metadata   the next metadata file is written. Crash after: nothing refers to it, the sweep removes it.
    3. pointer    one UPDATE moves the table's pointer, provided that it still names the caller's metadata file.

    The library reads pointer and metadata again before it begins and opens a new client of the store for every file
    of its own. The pointer names a file that never changes, so the condition of step 3 says all that reading could,
    and half of a commit's requests are saved.
    """

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commit updates. Raises CommitFailedException when the table has moved on; nothing has happened then."""
        if isinstance(table, StagedTable):
            return super().commit_table(table, requirements, updates)
        for requirement in requirements:  # Step 1.
            requirement.validate(table.metadata)
        metadata = update_table_metadata(table.metadata, updates, False, table.metadata_location)
        version = self._parse_metadata_version(table.metadata_location) + 1
        location = load_location_provider(metadata.location, metadata.properties).new_table_metadata_file_location(
            version
        )
        self._write_metadata(metadata, table.io, location)  # Step 2.
        self._move_pointer(table, location)  # Step 3.
        return CommitTableResponse.model_construct(metadata=metadata, metadata_location=location)

    @contextmanager
    def making(self, name: str) -> Iterator[None]:
        """Let nobody else make a table of that name meanwhile: who comes second would leave a metadata file behind.

        Held in the database, for whoever makes tables there. A catalog in SQLite is used by one thread alone.
        """
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{self.name}.{name}", 0))))
            yield

    @staticmethod
    def _write_metadata(metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:
        # Its name is unique: asking whether it exists would be one more request.
        ToOutputFile.table_metadata(metadata, io.new_output(metadata_path), overwrite=True)

    def _move_pointer(self, table: Table, location: str) -> None:
        *namespace, name = table.name()
        statement = (
            update(IcebergTables)
            .where(
                IcebergTables.catalog_name == self.name,
                IcebergTables.table_namespace == ".".join(namespace),
                IcebergTables.table_name == name,
                IcebergTables.metadata_location == table.metadata_location,
            )
            .values(metadata_location=location, previous_metadata_location=table.metadata_location)
        )
        with Session(self.engine) as session:
            if session.connection().execute(statement).rowcount < 1:
                raise CommitFailedException(f"table {'.'.join(table.name())} has been moved on by another writer")
            session.commit()


def open_catalog(config: CatalogConfig) -> LakeCatalog:
    """Open one catalog; its two tables in the database are created when they are missing."""
    return LakeCatalog(
        config.name,
        **{
            "uri": config.uri,
            "warehouse": config.warehouse,
            "pool_pre_ping": "true",
            "py-io-impl": FILE_IO,
            **store_properties(config),
        },
    )


def store_properties(config: CatalogConfig) -> dict[str, str]:
    """Return what opens a catalog's object store, under the library's names."""
    return {
        "s3.endpoint": config.s3_endpoint,
        "s3.access-key-id": config.s3_access_key,
        "s3.secret-access-key": config.s3_secret_key,
        "s3.region": config.s3_region,
    }
