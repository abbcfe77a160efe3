"""Remove files that no kept snapshot refers to: what compaction replaced, expired snapshots' metadata, old state files,
and what a crashed writer left behind.

It keeps no list on disk, so a crash of maintenance leaks nothing. Two graces keep a file from being removed too early:
that of its writer, who commits what it wrote within minutes or gives up (`COMMIT_WITHIN_S`), and that of a reader, who
has planned on a snapshot that was current when the file was still needed. How long a file has not been needed no
listing says, so the sweeps of one process remember when they first found it (`Unneeded`); a new one counts anew.
"""

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlparse

from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse.state import STATE_PROPERTY, decode
from lakehouse.state_files import files_of

FILE_GRACE_S: Final = 600  # seconds since it was written; twice what a writer or maintenance takes at most
READER_GRACE_S: Final = 600.0  # seconds since nothing refers to it; longer than any query may run
REMOVED_AT_ONCE_MAX: Final = 20_000  # files of one sweep; the next one goes on


def unreferenced(ages_s: Mapping[str, float], referenced: Iterable[str], grace_s: float = FILE_GRACE_S) -> list[str]:
    """Return the files to remove, oldest first. Pure; `ages_s` maps a path to its age in seconds."""
    kept = set(referenced)
    old = [path for path, age_s in ages_s.items() if age_s > grace_s and path not in kept]
    return sorted(old, key=lambda path: -ages_s[path])[:REMOVED_AT_ONCE_MAX]


class Unneeded:
    """Since when nothing has referred to the files of a table, by the times of the sweeps that found them."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._since_s)

    def ripe(self, found: Iterable[str], now_s: float, grace_s: float = READER_GRACE_S) -> list[str]:
        """Take what a sweep found at `now_s`; return what has not been needed for the grace, in the sweep's order."""
        self._since_s = {path: self._since_s.get(path, now_s) for path in found}
        return [path for path, since_s in self._since_s.items() if now_s - since_s >= grace_s]


def sweep(table: Table, now_s: float, grace_s: float = FILE_GRACE_S) -> int:
    """Remove the table's unreferenced files; return how many."""
    return remove(table, doomed(table, now_s, grace_s))


def doomed(table: Table, now_s: float, grace_s: float = FILE_GRACE_S) -> list[str]:
    """Return the table's files to remove. Lists first, then asks the table what it needs.

    What it returns stays good: after the grace nothing refers to a file any more that nothing referred to.
    """
    ages_s = {path: now_s - modified_s for path, _, modified_s in listed(table)}
    table.refresh()
    paths = {_path(location, table) for location in references(table)}
    return unreferenced(ages_s, paths, grace_s)


def listed(table: Table) -> list[tuple[str, str, float]]:
    """Return (path in the store, location, seconds since 1970 when it was written) of all files of a table's folder."""
    found = _store(table)
    if found is None:
        return []
    store, root = found
    infos = store.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
    files = [info for info in infos if info.type == FileType.File and info.mtime_ns]
    return [(info.path, table.location() + info.path[len(root) :], info.mtime_ns / 1e9) for info in files]


def remove(table: Table, paths: Iterable[str]) -> int:
    """Remove files that were found; return how many. One that is gone already is no trouble."""
    found, count = _store(table), 0
    if found is None:
        return 0
    for path in paths:
        try:
            found[0].delete_file(path)
        except FileNotFoundError:
            continue
        count += 1
    return count


def references(table: Table) -> set[str]:
    """Return the locations of all files that the table needs: metadata, states, manifests and data of all snapshots."""
    metadata = table.metadata
    found = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    found.update(statistics.statistics_path for statistics in metadata.statistics)
    found.update(statistics.statistics_path for statistics in metadata.partition_statistics)
    manifests = {}
    for snapshot in metadata.snapshots:
        found.add(snapshot.manifest_list)
        found.update(state_files(table.io, snapshot))
        manifests.update({manifest.manifest_path: manifest for manifest in snapshot.manifests(table.io)})
    for path, manifest in manifests.items():
        found.add(path)
        found.update(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
    return found


def state_files(io: FileIO, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the locations of the files that hold the recovery state which a snapshot names. Raises StateError."""
    root = None if snapshot.summary is None else snapshot.summary.get(STATE_PROPERTY)
    if root is None:
        return ()
    with io.new_input(root).open() as stream:
        return (root, *files_of(decode(stream.read(), root)))


def _store(table: Table) -> tuple[FileSystem, str] | None:
    """Return the store of a table and the table's folder there."""
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        return None
    scheme, netloc, root = PyArrowFileIO.parse_location(table.location(), table.properties)
    return io.fs_by_scheme(scheme, netloc), root


def _path(location: str, table: Table) -> str:
    """The store's own name of a location, as its listings say it."""
    parsed = urlparse(location)
    return PyArrowFileIO.parse_location(location, table.properties)[2] if parsed.scheme else location
