"""One commit of a table: steps 1 to 3 of `lakehouse.committer`."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from contracts.ports import Clock
from lakehouse.handover import Handover
from lakehouse.heap import tidied
from lakehouse.iceberg import COMMIT_WITHIN_S
from lakehouse.ports import Fault, LakeTable, Step
from lakehouse.settling import Account, Settled, settle
from lakehouse.state import Kept, TableState, committed, following, must_fold

FILES_AGE_MAX_MS: Final = int(COMMIT_WITHIN_S * 1_000)  # what was written before that may have been swept


class Heard(Struct, frozen=True):
    """A handover that waits, and where it lies in its partition."""

    offset: int
    handover: Handover


class Done(Struct, frozen=True):
    """What a commit did; `snapshot_id` is that of the newest snapshot when there was nothing to commit.

    `offset`: from where handovers are read on.
    """

    settled: Settled
    offset: int
    kept: Kept
    snapshot_id: int


class Place(Struct, frozen=True):
    """A table with its newest state, and the partition of handovers that it is served from."""

    contract: str
    partition: str
    table: LakeTable
    kept: Kept
    snapshot_id: int


def commit(place: Place, heard: Sequence[Heard], logs: dict[str, str], clock: Clock, fault: Fault) -> Done:
    """Commit what handovers bring that the table lacks. Errors: those of `LakeTable`."""
    kept = place.kept
    account = Account(kept.streams, kept.root.floors, kept.root.logs, dict(kept.root.held), kept.root.ids)
    settled = settle([one.handover for one in heard], account, clock.now_ms() - FILES_AGE_MAX_MS)  # Step 1.
    fault(Step.SETTLED, place.contract)
    offset = heard[-1].offset + 1
    if not any(one.changes for one in settled.taken):
        return Done(settled, offset, kept, place.snapshot_id)
    root = TableState(
        changed=tuple(settled.changed.items()),
        floors=settled.floors,
        heard={place.partition: offset},
        logs=settled.logs | logs,
        held=tuple(settled.held.items()),
        ids=settled.ids,
    )
    with tidied(len(kept.streams.columns) if must_fold(kept.streams, settled.changed) else 0):
        made, location = place.table.store(following(kept, root))  # Step 2.
    fault(Step.STATE_WRITTEN, place.contract)
    files = [file for one in settled.taken for file in one.files]
    snapshot_id = place.table.commit(files, location)  # Step 3.
    fault(Step.COMMITTED, place.contract)
    return Done(settled, offset, committed(kept, made, location), snapshot_id)
