"""Tables back into a catalog that has lost them, from their newest metadata files."""

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from msgspec import Struct
from pyiceberg.exceptions import NamespaceAlreadyExistsError, TableAlreadyExistsError
from pyiceberg.io.pyarrow import PyArrowFileIO

from lakehouse.catalog import LakeCatalog
from lakehouse.errors import BrokenTableError, TableConflictError, UnsupportedTableError
from lakehouse.foreign import ForeignTable
from lakehouse.metadata_files import FOLDER, candidates_in, files_in, newest, read_metadata, version_of

# Folders that one table may have had one after the other: a rebuild puts it into a new one and leaves word in the old.
MOVES_MAX: Final = 100
# Properties with which a table would decide how we open files.
_OPENING: Final = ("py-io-impl", "s3.", "gcs.", "adls.", "hdfs.", "hf.")


class Registered(Struct, frozen=True):
    """Where a table was found. `unreadable`: metadata files that were left aside because they are damaged."""

    metadata_location: str
    snapshot_id: int | None
    unreadable: tuple[str, ...]


def register(
    catalog: LakeCatalog, table: str, location: str | None = None, acknowledged: Collection[int] = ()
) -> Registered:
    """Enter a table into the catalog that does not know it.

    `location`: its folder or a metadata file, by default the folder where the catalog puts a table of that name.
    `acknowledged`: ids of snapshots that are known to have been current. Raises TableConflictError when the catalog
    knows the table, BrokenTableError when its files are not all there, UnsupportedTableError.
    """
    if catalog.table_exists(table):
        raise TableConflictError(f"table {catalog.name}.{table}: the catalog knows it already")
    io = file_io(catalog)
    found, unreadable = find(io, location or default_location(catalog, table), acknowledged)
    document = read_metadata(io, found)
    for name in document.get("properties") or {}:
        if name.startswith(_OPENING):
            raise UnsupportedTableError(f"{found}: its property {name!r} says how to open files: remove it first")
    snapshot_id = check_files(ForeignTable(found, io), io, str(document.get("location", "")))
    with suppress(NamespaceAlreadyExistsError):
        catalog.create_namespace(table.rpartition(".")[0])
    try:
        catalog.register_table(table, found)
    except TableAlreadyExistsError as error:
        raise TableConflictError(f"table {catalog.name}.{table}: somebody else has just registered it") from error
    return Registered(found, snapshot_id, tuple(unreadable))


def find(io: PyArrowFileIO, location: str, acknowledged: Collection[int] = ()) -> tuple[str, list[str]]:
    """Return the newest metadata file of a table, and those that cannot be read. Raises BrokenTableError."""
    if location.endswith((".metadata.json", ".metadata.json.gz")):
        return location, []
    unreadable: list[str] = []
    for _ in range(MOVES_MAX):
        candidates, broken = candidates_in(io, location)
        unreadable += broken
        best = newest(candidates, acknowledged)
        moved = str(read_metadata(io, best.location).get("location", location)).rstrip("/")
        if moved == location.rstrip("/"):
            return best.location, unreadable
        if not _has_metadata(io, moved):
            return best.location, unreadable
        location = moved
    raise BrokenTableError(f"{location}: expected a table's folder, found a circle of them: name the metadata file")


def check_files(table: ForeignTable, io: PyArrowFileIO, location: str) -> int | None:
    """Raise BrokenTableError when a live file is missing; return the snapshot. One listing, however many files."""
    live = [path.removeprefix(f"{location}/") for path in table.files()]
    own = {path for path in live if "://" not in path}
    missing = sorted(own - set(files_in(io, location, recursive=True))) if own else []
    if missing:
        raise BrokenTableError(
            f"{location}: {len(missing)} of {len(live)} live files are missing, first {missing[0]}: restore them, or "
            "run `fieldlake table rebuild`"
        )
    return table.current_snapshot_id


def is_left_behind(catalog: LakeCatalog, table: str) -> bool:
    """Say whether there are commits in the folder of a table, so that an empty one must not be made over them.

    The first metadata file alone is a table that somebody else is making just now.
    """
    try:
        names = files_in(file_io(catalog), f"{default_location(catalog, table)}/{FOLDER}")
    except BrokenTableError:
        return False
    return any((version_of(name) or 0) > 0 for name in names)


def default_location(catalog: LakeCatalog, table: str) -> str:
    """Return the folder where a catalog puts a table unless told otherwise."""
    namespace, _, name = table.rpartition(".")
    return f"{catalog.properties['warehouse'].rstrip('/')}/{namespace}/{name}"


def file_io(catalog: LakeCatalog) -> PyArrowFileIO:
    """Return what opens files of the catalog's store, without asking any table how."""
    return PyArrowFileIO(catalog.properties)


def _has_metadata(io: PyArrowFileIO, location: str) -> bool:
    try:
        return bool(candidates_in(io, location)[0])
    except BrokenTableError:
        return False
