"""What the current snapshot of a table consists of: its manifests and their entries, each manifest read once."""

from collections.abc import Iterator

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakehouse.errors import DeleteFilesError


class Manifests:
    """Entries by manifest. A manifest never changes, so a repeated look reads only those that are new."""

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._read: dict[str, tuple[ManifestEntry, ...]] = {}

    def __len__(self) -> int:
        """Return the number of entries that are held."""
        return sum(map(len, self._read.values()))

    def of(self, snapshot: Snapshot) -> list[ManifestFile]:
        """Return the snapshot's manifests; forget the entries of all others."""
        found = snapshot.manifests(self._io)
        kept = {manifest.manifest_path for manifest in found}
        self._read = {path: entries for path, entries in self._read.items() if path in kept}
        return found

    def entries(self, manifest: ManifestFile) -> tuple[ManifestEntry, ...]:
        """Return all entries of a manifest, also of files that it says are gone."""
        found = self._read.get(manifest.manifest_path)
        if found is None:
            found = tuple(manifest.fetch_manifest_entry(self._io, discard_deleted=False))
            self._read[manifest.manifest_path] = found
        return found

    def live(self, manifest: ManifestFile) -> list[ManifestEntry]:
        """Return the entries of files that the table has."""
        return [entry for entry in self.entries(manifest) if entry.status != ManifestEntryStatus.DELETED]


def live_files(table: Table, manifests: Manifests) -> Iterator[tuple[ManifestEntry, DataFile]]:
    """Yield the current data files with their entries. Raises DeleteFilesError."""
    snapshot = table.current_snapshot()
    for manifest in manifests.of(snapshot) if snapshot is not None else ():
        check_content(table, manifest)
        for entry in manifests.live(manifest):
            yield entry, entry.data_file


def check_content(table: Table, manifest: ManifestFile) -> None:
    """Raise DeleteFilesError for a manifest of anything else than data files: rows of such a table are not what is in
    its data files, so copying those would bring deleted rows back."""
    if manifest.content != ManifestContent.DATA:
        name = ".".join(table.name())
        raise DeleteFilesError(
            f"table {name}: expected data files only, found delete files of another engine: "
            f"run ALTER TABLE {name} EXECUTE optimize there, then maintenance goes on by itself"
        )
