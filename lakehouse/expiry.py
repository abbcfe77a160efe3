"""Which snapshots a table keeps, decided within the commit that adds one.

Every kept snapshot makes the metadata longer that each commit copies and writes. So a commit that adds a snapshot also
drops the oldest, some at a time: no commit of its own, nothing to conflict with, and their number stays within bounds
for ever. Files of a dropped snapshot stay for `lakehouse.maintenance.sweep.READER_GRACE_S`, so a reader that has
planned on it finishes.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update.snapshot import ExpireSnapshots

from lakehouse.state import STATE_PROPERTY

SNAPSHOTS_KEPT: Final = 10  # snapshots; each is a kilobyte of metadata, and readers need none that is not current
EXPIRED_AT_ONCE: Final = 8  # snapshots; dropping is an update of its own, as long to prepare as the one that adds


class Kept(Struct, frozen=True):
    """A snapshot as expiry sees it, in the order of commits. `pinned`: a branch or a tag refers to it."""

    snapshot_id: int
    has_state: bool
    pinned: bool


def expired(snapshots: Sequence[Kept], kept_max: int) -> list[int]:
    """Return the ids to drop, oldest first: all but the newest `kept_max`, the pinned, and the newest with a state.

    Recovery walks from the current snapshot back to the newest state, so what lies between the two is kept as well: a
    run of commits by others, none of which names a state, must not break the way.
    """
    newest_state = next((at for at in reversed(range(len(snapshots))) if snapshots[at].has_state), len(snapshots))
    old = snapshots[: max(0, min(len(snapshots) - kept_max, newest_state))]
    return [s.snapshot_id for s in old if not s.pinned]


def due(metadata: TableMetadata) -> list[int]:
    """Return the ids to drop with a commit that is about to add a snapshot; none until there are enough at once."""
    if len(metadata.snapshots) < SNAPSHOTS_KEPT + EXPIRED_AT_ONCE - 1:
        return []
    pinned = {ref.snapshot_id for ref in metadata.refs.values()}
    present = [
        Kept(s.snapshot_id, s.summary is not None and STATE_PROPERTY in s.summary, s.snapshot_id in pinned)
        for s in sorted(metadata.snapshots, key=lambda s: s.sequence_number or 0)
    ]
    return expired(present, SNAPSHOTS_KEPT - 1)


def expire_within(transaction: Transaction, table: Table) -> int:
    """Drop old snapshots in a transaction that is about to add one; return how many."""
    ids = due(table.metadata)
    if ids:
        ExpireSnapshots(transaction).by_ids(ids).commit()
    return len(ids)
