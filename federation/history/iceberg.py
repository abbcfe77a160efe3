"""The service history table in an Iceberg catalog, read without any engine."""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.types import StringType
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from contracts import ranges
from federation.config import CatalogConfig
from federation.errors import HistoryTableError, StoreUnavailableError
from federation.history.model import StreamMark
from federation.history.ports import FileBounds, TableVersion
from federation.history.segments import ASSET_COLUMN, ENTRY_COLUMNS, Segment
from lakehouse.errors import StateError
from lakehouse.state import STATE_PROPERTY
from lakehouse.state_files import StateReader

NAMESPACE: Final = "field"
TABLE: Final = "service_history"
# Commits that only rewrite files may carry no state of their own; expiry keeps about 30 snapshots.
STATE_ANCESTORS_MAX: Final = 30
VERSIONS_KEPT: Final = 4  # versions whose files can still be read: the one in use, and those that slow requests hold

_POINTER_SQL: Final = text(
    "SELECT metadata_location FROM iceberg_tables "
    "WHERE catalog_name = :catalog AND table_namespace = :namespace AND table_name = :table"
)


def open_catalog(config: CatalogConfig) -> SqlCatalog:
    """Return the catalog; raises StoreUnavailableError while its database does not answer."""
    properties = {
        "type": "sql",
        "uri": config.uri,
        "warehouse": config.warehouse,
        "init_catalog_tables": "false",
        "pool_pre_ping": "true",
        "s3.endpoint": config.s3_endpoint,
        "s3.access-key-id": config.s3_access_key,
        "s3.secret-access-key": config.s3_secret_key,
        "s3.region": config.s3_region,
        "s3.path-style-access": "true",
    }
    try:
        catalog = load_catalog(config.name, **properties)
    except SQLAlchemyError as error:
        raise StoreUnavailableError(f"catalog {config.name}: its database does not answer: {error}") from error
    assert isinstance(catalog, SqlCatalog)
    return catalog


class IcebergHistoryTable:
    """HistoryTable over an SQL catalog. One thread follows versions; any thread may read files."""

    def __init__(self, config: CatalogConfig) -> None:
        self._config = config
        self._opened: SqlCatalog | None = None
        self._name = f"{NAMESPACE}.{TABLE}"
        self._states = StateReader()
        self._manifests: dict[str, list[DataFile]] = {}
        self._tasks: OrderedDict[str, tuple[Table, dict[str, FileScanTask]]] = OrderedDict()

    def close(self) -> None:
        """Close the connections to the catalog's database."""
        if self._opened is not None:
            self._opened.engine.dispose()

    @property
    def _catalog(self) -> SqlCatalog:
        # Opened at the first use: its database may come up after this process.
        if self._opened is None:
            self._opened = open_catalog(self._config)
        return self._opened

    def pointer(self) -> str | None:
        """Return the location of the table's current metadata."""
        values = {"catalog": self._config.name, "namespace": NAMESPACE, "table": TABLE}
        try:
            with self._catalog.engine.connect() as connection:
                found = connection.execute(_POINTER_SQL, values).scalar_one_or_none()
        except SQLAlchemyError as error:
            raise StoreUnavailableError(f"catalog {self._config.name}: {error}") from error
        return None if found is None else str(found)

    def version(self, pointer: str) -> TableVersion | None:
        """Read metadata, manifests and the ingest's state of the current version.

        The catalog may have moved on since `pointer` was read; then the version is the newer one.
        """
        try:
            table = self._catalog.load_table(self._name)
            snapshot = table.current_snapshot()
            if snapshot is None:
                return None
            tasks = {_key(task): task for task in self._plan(table, snapshot)}
            origins = self._origins(table, snapshot)
        except (OSError, SQLAlchemyError, NoSuchTableError) as error:
            raise StoreUnavailableError(f"table {self._name}: {error}") from error
        self._check_columns(table)
        self._tasks[table.metadata_location] = (table, tasks)
        while len(self._tasks) > VERSIONS_KEPT:
            self._tasks.popitem(last=False)
        return TableVersion(
            pointer=table.metadata_location,
            snapshot_id=snapshot.snapshot_id,
            committed_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1_000, UTC),
            files=tuple(_bounds(table, key, task.file) for key, task in tasks.items()),
            origins=origins,
        )

    def read(self, key: str) -> Segment:
        """Read one data file, its columns mapped to today's names by field id."""
        for table, tasks in reversed(list(self._tasks.values())):
            if key in tasks:
                return Segment(self._rows(table, tasks[key]))
        raise StoreUnavailableError(f"table {self._name}: file {key} belongs to no version in use; ask again")

    def _plan(self, table: Table, snapshot: Snapshot) -> Iterable[FileScanTask]:
        """Return the live files, opening only manifests that no version before named: a commit adds one or two."""
        manifests = snapshot.manifests(table.io)
        if any(manifest.content == ManifestContent.DELETES for manifest in manifests):
            return table.scan().plan_files()  # deletes are matched with files by sequence number, the library's work
        before, self._manifests = self._manifests, {}
        for manifest in manifests:
            files = before.get(manifest.manifest_path)
            if files is None:
                files = [entry.data_file for entry in manifest.fetch_manifest_entry(table.io)]
            self._manifests[manifest.manifest_path] = files
        return [FileScanTask(file) for files in self._manifests.values() for file in files]

    def _rows(self, table: Table, task: FileScanTask) -> pa.Table:
        schema = table.schema().select(ASSET_COLUMN, *ENTRY_COLUMNS)
        try:
            return ArrowScan(table.metadata, table.io, schema, AlwaysTrue()).to_table([task])
        except OSError as error:
            raise StoreUnavailableError(f"table {self._name}: file {task.file.file_path}: {error}") from error

    def _check_columns(self, table: Table) -> None:
        missing = {ASSET_COLUMN, *ENTRY_COLUMNS} - set(table.schema().column_names)
        if missing:
            raise HistoryTableError(
                f"table {self._name}: expected the columns of contract service_history, found no {sorted(missing)}: "
                "publish the contract version that the table follows, and this one with it"
            )

    def _origins(self, table: Table, snapshot: Snapshot) -> tuple[StreamMark, ...]:
        """Return what the newest state among the snapshot and its ancestors says; nothing when none carries one."""
        at: Snapshot | None = snapshot
        for _ in range(STATE_ANCESTORS_MAX):
            location = at.summary.additional_properties.get(STATE_PROPERTY) if at is not None and at.summary else None
            if location is not None:
                return self._marks(table, location)
            if at is None or at.parent_snapshot_id is None:
                break
            at = table.snapshot_by_id(at.parent_snapshot_id)
        return ()

    def _marks(self, table: Table, location: str) -> tuple[StreamMark, ...]:
        try:
            kept = self._states.read(table.io, location)
        except StateError as error:
            raise HistoryTableError(str(error)) from error
        marks = [
            StreamMark(key.origin, key.epoch, ranges.upto(committed), committed)
            for key, committed in kept.streams.items()
            if key.contract == TABLE
        ]
        return tuple(sorted(marks, key=lambda mark: (mark.origin, mark.epoch)))


def _key(task: FileScanTask) -> str:
    return " - ".join([task.file.file_path, *sorted(deleted.file_path for deleted in task.delete_files)])


def _bounds(table: Table, key: str, file: DataFile) -> FileBounds:
    field_id = table.schema().find_field(ASSET_COLUMN).field_id
    return FileBounds(key, _text(file.lower_bounds, field_id), _text(file.upper_bounds, field_id))


def _text(bounds: Any, field_id: int) -> str | None:
    raw = (bounds or {}).get(field_id)
    return None if raw is None else str(from_bytes(StringType(), raw))
