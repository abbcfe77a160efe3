"""Transactions that neither copy nor read a table's metadata more often than it changes."""

from collections.abc import Mapping

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import TableUpdate
from pyiceberg.table.update.snapshot import _OverwriteFiles


class LeanTransaction(Transaction):
    """The library's transaction, with its metadata computed once per staged update.

    The library computes it at every look, about eighteen times a commit, each time as a deep copy with all snapshots:
    that was two thirds of a commit's CPU time. Staged updates and the table's metadata are replaced and never changed
    in place, so their identity says whether the last result still holds.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._computed: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with what is staged."""
        base, updates = self._table.metadata, self._updates
        if not updates:
            return base
        if self._computed is None or self._computed[0] is not base or self._computed[1] is not updates:
            self._computed = (base, updates, super().table_metadata)
        return self._computed[2]


class ReplaceOwnFiles(_OverwriteFiles):
    """An overwrite of files that the writer itself added, each in a commit of its own, and whose entries it knows.

    The library opens every manifest of the table twice to find the entries of the files that go: that was half of the
    ingest process's time. A manifest that one of these commits added, and that holds nothing else, is that entry. When
    manifests have been merged since then, the library looks.
    """

    def __init__(
        self, transaction: Transaction, io: FileIO, snapshot_properties: dict[str, str], own: Mapping[int, DataFile]
    ) -> None:
        """`own`: the files to be replaced by the ids of the snapshots that added them."""
        super().__init__(
            operation=Operation.OVERWRITE, transaction=transaction, io=io, snapshot_properties=snapshot_properties
        )
        self._own = own
        for file in own.values():
            self.delete_data_file(file)

    def _existing_manifests(self) -> list[ManifestFile]:
        single = self._single()
        if len(single) < len(self._own):
            return super()._existing_manifests()
        gone = {manifest.manifest_path for manifest in single.values()}
        return [m for m in self._parents() if m.manifest_path not in gone and (m.has_added_files() or _has_existing(m))]

    def _deleted_entries(self) -> list[ManifestEntry]:
        single = self._single()
        if len(single) < len(self._own):
            return super()._deleted_entries()
        return [
            ManifestEntry.from_args(
                status=ManifestEntryStatus.DELETED,
                snapshot_id=self._snapshot_id,
                sequence_number=manifest.sequence_number,
                file_sequence_number=manifest.sequence_number,
                data_file=self._own[snapshot_id],
            )
            for snapshot_id, manifest in single.items()
        ]

    def _single(self) -> dict[int, ManifestFile]:
        """Return the manifests that hold one of the files and nothing else, by the snapshot that added them."""
        added_one = [m for m in self._parents() if m.added_files_count == 1 and not _has_existing(m)]
        return {at: m for m in added_one if (at := m.added_snapshot_id) is not None and at in self._own}

    def _parents(self) -> list[ManifestFile]:
        snapshot = self._transaction.table_metadata.snapshot_by_name(self._target_branch)
        return snapshot.manifests(self._io) if snapshot is not None else []


def _has_existing(manifest: ManifestFile) -> bool:
    return manifest.existing_files_count is None or manifest.existing_files_count > 0
