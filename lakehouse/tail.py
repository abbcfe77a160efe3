"""Appends that share a manifest.

A manifest per commit is four a second, and whoever reads the table opens each of them until maintenance has merged
them: on a busy machine twenty to fifty, a fifth of the processor time of a query for the newest rows. So a commit
writes the files of the last ones once more beside its own, into a manifest that takes the place of theirs. It reads
nothing for that: as long as the list names the manifest that this writer wrote last, every file in it is live, since
who removes one writes the manifest anew. Of a snapshot that is its own, the writer knows the list as well.
"""

from copy import copy
from typing import Final

from msgspec import Struct
from pyiceberg.io import FileIO
from pyiceberg.manifest import UNASSIGNED_SEQ, DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _MergeAppendFiles

# Files of a shared manifest. With so many a commit takes as long as with one, and the manifest is read as fast; with 32
# both take longer.
TAIL_FILES_MAX: Final = 16


class Tail(Struct, frozen=True):
    """What a writer knows of its last commit: the snapshot, all manifests in its list, and which one is its own.

    `entries` are those of its own manifest `path`, as another manifest would take them over.
    """

    snapshot_id: int
    manifests: tuple[ManifestFile, ...]
    path: str
    entries: tuple[ManifestEntry, ...]


class TailAppend(_MergeAppendFiles):
    """The library's append, with the files of the last ones in the manifest that it adds."""

    def __init__(
        self, transaction: Transaction, io: FileIO, snapshot_properties: dict[str, str], tail: Tail | None
    ) -> None:
        super().__init__(Operation.APPEND, transaction, io, snapshot_properties=snapshot_properties)
        self._tail = tail
        self._listed: list[ManifestFile] = []
        self._path = ""
        self._earlier: tuple[ManifestEntry, ...] = ()

    def tail(self) -> Tail:
        """Return what is known of this commit; to be asked once it has landed."""
        landed = self._transaction.table_metadata.snapshot_by_id(self._snapshot_id)
        assert landed is not None  # it has just been added
        sequence = landed.sequence_number or 0
        taken_over = ManifestEntryStatus.EXISTING
        added = (_entry(file, taken_over, self._snapshot_id, sequence) for file in self._added_data_files)
        listed = tuple(_numbered(manifest, sequence) for manifest in self._listed)
        return Tail(self._snapshot_id, listed, self._path, (*self._earlier, *added))

    def _existing_manifests(self) -> list[ManifestFile]:
        tail = self._tail
        if tail is not None and tail.snapshot_id == self._parent_snapshot_id:
            return list(tail.manifests)
        return super()._existing_manifests()

    def _manifests(self) -> list[ManifestFile]:
        present = self._existing_manifests()
        tail = self._tail
        if tail is not None and any(manifest.manifest_path == tail.path for manifest in present):
            self._path, self._earlier = tail.path, tail.entries
        if self._added_data_files:
            present = self._with_added(present)
        self._listed = self._process_manifests(present)
        return self._listed

    def _with_added(self, present: list[ManifestFile]) -> list[ManifestFile]:
        spec = self._transaction.table_metadata.spec()
        before = next((manifest for manifest in present if manifest.manifest_path == self._path), None)
        shares = before is not None and before.partition_spec_id == spec.spec_id
        if not shares or len(self._earlier) + len(self._added_data_files) > TAIL_FILES_MAX:
            before, self._earlier = None, ()
        with self.new_manifest_writer(spec) as writer:
            for entry in self._earlier:
                writer.existing(entry)
            for file in self._added_data_files:
                writer.add(_entry(file, ManifestEntryStatus.ADDED, self._snapshot_id, None))
        self._path = writer.to_manifest_file().manifest_path
        return [writer.to_manifest_file(), *(manifest for manifest in present if manifest is not before)]


def _entry(file: DataFile, status: ManifestEntryStatus, snapshot_id: int, sequence: int | None) -> ManifestEntry:
    """Return a file's entry; `sequence` is None while the commit that adds it has no number yet."""
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=sequence,
        file_sequence_number=sequence,
        data_file=file,
    )


def _numbered(manifest: ManifestFile, sequence: int) -> ManifestFile:
    """Return a manifest as its list has it: what was unknown while it was written is the number of the commit."""
    if manifest.sequence_number != UNASSIGNED_SEQ:
        return manifest
    found = copy(manifest)
    found.sequence_number = sequence
    if found.min_sequence_number == UNASSIGNED_SEQ:
        found.min_sequence_number = sequence
    return found
