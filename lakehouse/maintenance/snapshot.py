"""A snapshot of maintenance in the making: its manifests, its list, and the updates that make it current."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final
from uuid import uuid4

from pyiceberg.manifest import (
    DataFile,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, SnapshotSummaryCollector, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableUpdate,
)

from lakehouse import expiry
from lakehouse.iceberg import state_snapshot
from lakehouse.maintenance.change import ENTRIES_MAX, Change, rearranged
from lakehouse.maintenance.listing import Manifests, check_content

OWN_PREFIX: Final = "fieldlake."  # summary keys that the next snapshot of maintenance names again


class NextSnapshot:
    """One snapshot in the making, over as many looks as it takes."""

    def __init__(self, table: Table, change: Change, manifests: Manifests) -> None:
        self._table, self._change, self._manifests = table, change, manifests
        self.snapshot_id = table.metadata.new_snapshot_id()
        self._uuid, self._number = uuid4(), itertools.count()
        self._written: dict[tuple[int, ManifestEntryStatus, tuple[str, ...]], ManifestFile] = {}
        self._parent: Snapshot | None = None
        self._kept: list[ManifestFile] = []
        self._moved: dict[int, list[ManifestEntry]] = {}
        self._gone: list[ManifestEntry] = []
        self._new: list[ManifestFile] = []

    def look(self) -> bool:
        """Sort the parent's manifests; say whether every file that goes is live."""
        self._parent = self._table.current_snapshot()
        present = self._manifests.of(self._parent) if self._parent is not None else []
        for manifest in present:
            check_content(self._table, manifest)
        sorted_out = rearranged(present, self._manifests, self._change)
        self._kept, self._moved, self._gone = sorted_out
        return len(self._gone) == len(self._change.removed)

    def write_manifests(self) -> None:
        """Write what the new snapshot needs and an earlier try has not written."""
        new: list[ManifestFile] = []
        for spec_id, entries in _by_spec(self._change.added):
            added = [ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, data_file=file) for file in entries]
            new.append(self._manifest(spec_id, ManifestEntryStatus.ADDED, added))
        for spec_id, moved in sorted(self._moved.items()):
            ordered = sorted(moved, key=lambda entry: (_partition(entry), entry.sequence_number or 0))
            new += [self._manifest(spec_id, ManifestEntryStatus.EXISTING, part) for part in _parts(ordered)]
        if not self._change.traceless:
            by_spec: dict[int, list[ManifestEntry]] = defaultdict(list)
            for entry in self._gone:
                by_spec[entry.data_file.spec_id].append(entry)
            new += [self._manifest(at, ManifestEntryStatus.DELETED, gone) for at, gone in sorted(by_spec.items())]
        self._new = new

    def write_list(self) -> tuple[TableUpdate, ...]:
        """Write the manifest list; return the updates that make the snapshot current and drop old ones."""
        metadata = self._table.metadata
        location = self._table.location_provider().new_metadata_location(
            f"snap-{self.snapshot_id}-{next(self._number)}-{self._uuid}.avro"
        )
        sequence_number = metadata.next_sequence_number()
        parent_id = None if self._parent is None else self._parent.snapshot_id
        with write_manifest_list(
            format_version=2,
            output_file=self._table.io.new_output(location),
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent_id,
            sequence_number=sequence_number,
            avro_compression="deflate",
        ) as writer:
            writer.add_manifests([*self._new, *self._kept])
        snapshot = Snapshot.model_validate(
            {
                "snapshot-id": self.snapshot_id,
                "parent-snapshot-id": parent_id,
                "manifest-list": location,
                "sequence-number": sequence_number,
                "summary": self._summary(),
                "schema-id": metadata.current_schema_id,
            }
        )
        current = {"snapshot-id": self.snapshot_id, "ref-name": MAIN_BRANCH, "type": SnapshotRefType.BRANCH}
        dropped = expiry.due(metadata)
        return (
            AddSnapshotUpdate(snapshot=snapshot),
            SetSnapshotRefUpdate.model_validate(current),
            *((RemoveSnapshotsUpdate.model_validate({"snapshot-ids": dropped}),) if dropped else ()),
        )

    def requirements(self) -> tuple[AssertTableUUID, AssertRefSnapshotId]:
        """Return what must still hold when the pointer moves."""
        parent_id = None if self._parent is None else self._parent.snapshot_id
        return (
            AssertTableUUID(uuid=self._table.metadata.table_uuid),
            AssertRefSnapshotId.model_validate({"snapshot-id": parent_id, "ref": MAIN_BRANCH}),
        )

    def _manifest(self, spec_id: int, status: ManifestEntryStatus, entries: Sequence[ManifestEntry]) -> ManifestFile:
        """Return a manifest of entries in a status; write it unless an earlier try has."""
        key = (spec_id, status, tuple(entry.data_file.file_path for entry in entries))
        if key not in self._written:
            location = self._table.location_provider().new_metadata_location(f"{self._uuid}-m{next(self._number)}.avro")
            with write_manifest(
                format_version=2,
                spec=self._table.metadata.specs()[spec_id],
                schema=self._table.schema(),
                output_file=self._table.io.new_output(location),
                snapshot_id=self.snapshot_id,
                avro_compression="deflate",
            ) as writer:
                for entry in entries:
                    match status:
                        case ManifestEntryStatus.ADDED:
                            writer.add(entry)
                        case ManifestEntryStatus.EXISTING:
                            writer.existing(entry)
                        case ManifestEntryStatus.DELETED:
                            writer.delete(entry)
            self._written[key] = writer.to_manifest_file()
        return self._written[key]

    def _summary(self) -> Summary:
        metadata, collector = self._table.metadata, SnapshotSummaryCollector()
        specs, schema = metadata.specs(), metadata.schema()
        for file in self._change.added:
            collector.add_file(file, schema, specs[file.spec_id])
        for file in self._change.removed.values():
            collector.remove_file(file, schema, specs[file.spec_id])
        before = self._parent.summary if self._parent is not None else None
        counted = update_snapshot_summaries(
            Summary(operation=Operation.OVERWRITE, **collector.build(), **_own(state_snapshot(self._table))), before
        )
        # Who follows the table's changes skips a snapshot that only rearranges rows.
        operation = Operation.OVERWRITE if self._change.rows_changed else Operation.REPLACE
        return Summary(operation=operation, **counted.additional_properties)


def _own(snapshot: Snapshot | None) -> dict[str, str]:
    if snapshot is None or snapshot.summary is None:
        return {}
    return {key: value for key, value in snapshot.summary.additional_properties.items() if key.startswith(OWN_PREFIX)}


def _by_spec(files: Iterable[DataFile]) -> list[tuple[int, list[DataFile]]]:
    found: dict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        found[file.spec_id].append(file)
    return sorted(found.items())


def _parts(entries: list[ManifestEntry]) -> list[list[ManifestEntry]]:
    return [entries[at : at + ENTRIES_MAX] for at in range(0, len(entries), ENTRIES_MAX)]


def _partition(entry: ManifestEntry) -> int:
    partition = entry.data_file.partition
    number = partition[0] if len(partition) else None
    return -1 if number is None else int(number)
