"""Replace files of a table by others in one snapshot, beside a writer that never waits.

1. look       every file that goes must be live in the current snapshot. One that is not: somebody else has replaced it,
              so nothing is done, and what was written is left to the sweep.
2. manifests  of what comes and goes, and of what shared a manifest with what goes. Crash after: nothing refers to them.
3. list       the manifest list of the new snapshot, against exactly the one that was looked at.
4. pointer    one compare-and-set. Conflict: look again; data files and manifests of step 2 are used again, so a repeat
              costs the manifests that were added meanwhile, the list and the pointer.
5. unknown    the answer was lost: look again; the snapshot's id says whether it landed. Should it land later still, the
              compare-and-set of the repeat fails, and the next look finds it.

The new snapshot also names the recovery state of its parent, so the newest state is never further back than the newest
commit of maintenance, and expiry cannot come between.
"""

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol
from uuid import uuid4

from msgspec import Struct
from pyiceberg.exceptions import CommitFailedException
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
from lakehouse.errors import CommitConflictError, CommitOutcomeUnknownError
from lakehouse.iceberg import UNKNOWN, state_snapshot
from lakehouse.maintenance.listing import Manifests, check_content

# Tries of one replacement. At the highest commit rate a try wins about every other time: ten lose once in a thousand.
REPLACE_TRIES_MAX: Final = 10
# Seconds after which files that were written are not committed any more; see `lakehouse.iceberg.COMMIT_WITHIN_S`.
REPLACE_WITHIN_S: Final = 300.0
MANIFESTS_MAX: Final = 16  # manifests of one spec; a reader opens each of them that its filter does not rule out
ENTRIES_MAX: Final = 1_000  # entries of a merged manifest; about a megabyte, and a tenth of a second to rewrite
OWN_PREFIX: Final = "fieldlake."  # summary keys that the next snapshot of maintenance names again

_log = logging.getLogger(__name__)


class Point(Enum):
    """Points of the protocol at which a process may die."""

    LOOKED = "looked"
    MANIFESTS_WRITTEN = "manifests_written"
    LIST_WRITTEN = "list_written"
    COMMITTED = "committed"


class Fault(Protocol):
    """Called after every step; a test raises or lets somebody else commit in it."""

    def __call__(self, point: Point) -> None: ...


def no_fault(point: Point) -> None:
    """The fault of production: none."""


class Change(Struct, frozen=True):
    """Files by path that go and files that come.

    `rows_changed`: whether readers find other rows than before. `traceless`: the snapshot does not list what went,
    whose bounds may name a subject.
    """

    removed: Mapping[str, DataFile]
    added: tuple[DataFile, ...]
    rows_changed: bool = False
    traceless: bool = False


class Replaced(Struct, frozen=True):
    """`snapshot_id` is None when the files that were to go were gone already; nothing was changed then."""

    snapshot_id: int | None
    conflicts: int


def replace_files(
    table: Table,
    change: Change,
    manifests: Manifests,
    written_s: float,
    fault: Fault = no_fault,
    monotonic_s: Callable[[], float] = time.monotonic,
) -> Replaced:
    """Make a change current; `written_s`: when the first of its files was written, by the monotonic clock.

    Raises CommitConflictError and CommitOutcomeUnknownError; DeleteFilesError when the table has come to have some.
    """
    producer = _Producer(table, change, manifests)
    unknown: BaseException | None = None
    conflicts = 0
    for attempt in range(REPLACE_TRIES_MAX):
        try:
            if attempt:
                table.refresh()
            if table.metadata.snapshot_by_id(producer.snapshot_id) is not None:
                return Replaced(producer.snapshot_id, conflicts)
            if not producer.look():  # Step 1.
                return Replaced(None, conflicts)
            fault(Point.LOOKED)
            _check_age(table, monotonic_s() - written_s)
            producer.write_manifests()  # Step 2.
            fault(Point.MANIFESTS_WRITTEN)
            updates = producer.write_list()  # Step 3.
            fault(Point.LIST_WRITTEN)
            table._do_commit(updates, producer.requirements())  # Step 4.
            fault(Point.COMMITTED)
            return Replaced(producer.snapshot_id, conflicts)
        except CommitFailedException as conflict:
            conflicts += 1
            _log.info("maintenance of %s: moved by a writer, try %d: %s", _name(table), attempt + 1, conflict)
        except UNKNOWN as error:  # Step 5.
            unknown = error
            _log.warning("maintenance of %s: no answer, looking whether it landed: %s", _name(table), error)
    if unknown is not None:
        raise CommitOutcomeUnknownError(
            f"maintenance of {_name(table)}: expected an answer from catalog and store within {REPLACE_TRIES_MAX} "
            f"tries, last: {unknown}: check that both run; maintenance looks again by itself"
        ) from unknown
    raise CommitConflictError(f"maintenance of {_name(table)}: writers won {REPLACE_TRIES_MAX} times in a row")


class _Producer:
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


def rearranged(
    present: Iterable[ManifestFile], manifests: Manifests, change: Change
) -> tuple[list[ManifestFile], dict[int, list[ManifestEntry]], list[ManifestEntry]]:
    """Return which manifests stay as they are, which entries move to new ones by spec, and which entries go.

    A manifest is left alone when nothing in it goes; of a spec with more than MANIFESTS_MAX, the small ones are merged.
    """
    kept: dict[int, list[ManifestFile]] = defaultdict(list)
    moved: dict[int, list[ManifestEntry]] = defaultdict(list)
    gone: list[ManifestEntry] = []
    for manifest in present:
        live = manifests.live(manifest)
        staying = [entry for entry in live if entry.data_file.file_path not in change.removed]
        gone += [entry for entry in live if entry.data_file.file_path in change.removed]
        if len(staying) == len(manifests.entries(manifest)):
            kept[manifest.partition_spec_id].append(manifest)
        else:
            moved[manifest.partition_spec_id] += staying
    for spec_id, own in kept.items():
        if len(own) > MANIFESTS_MAX:
            small = [manifest for manifest in own if len(manifests.entries(manifest)) < ENTRIES_MAX // 2]
            moved[spec_id] += [entry for manifest in small for entry in manifests.live(manifest)]
            kept[spec_id] = [manifest for manifest in own if manifest not in small]
    return [m for own in kept.values() for m in own], {at: e for at, e in moved.items() if e}, gone


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


def _check_age(table: Table, age_s: float) -> None:
    if age_s > REPLACE_WITHIN_S:
        raise CommitConflictError(
            f"maintenance of {_name(table)}: its files are {age_s:.0f} s old, at most {REPLACE_WITHIN_S:.0f} s are "
            "allowed: it begins again by itself"
        )


def _name(table: Table) -> str:
    return ".".join(table.name())
