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

import logging
import time
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from msgspec import Struct
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from lakehouse.errors import CommitConflictError, CommitOutcomeUnknownError
from lakehouse.iceberg import UNKNOWN
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.listing import Manifests
from lakehouse.maintenance.snapshot import NextSnapshot

# Tries of one replacement. At the highest commit rate a try wins about every other time: ten lose once in a thousand.
REPLACE_TRIES_MAX: Final = 10
# Seconds after which files that were written are not committed any more; see `lakehouse.iceberg.COMMIT_WITHIN_S`.
REPLACE_WITHIN_S: Final = 300.0

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
    made = NextSnapshot(table, change, manifests)
    unknown: BaseException | None = None
    conflicts = 0
    for attempt in range(REPLACE_TRIES_MAX):
        try:
            if attempt:
                table.refresh()
            if table.metadata.snapshot_by_id(made.snapshot_id) is not None:
                return Replaced(made.snapshot_id, conflicts)
            if not made.look():  # Step 1.
                return Replaced(None, conflicts)
            fault(Point.LOOKED)
            _check_age(table, monotonic_s() - written_s)
            made.write_manifests()  # Step 2.
            fault(Point.MANIFESTS_WRITTEN)
            updates = made.write_list()  # Step 3.
            fault(Point.LIST_WRITTEN)
            table._do_commit(updates, made.requirements())  # Step 4.
            fault(Point.COMMITTED)
            return Replaced(made.snapshot_id, conflicts)
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


def _check_age(table: Table, age_s: float) -> None:
    if age_s > REPLACE_WITHIN_S:
        raise CommitConflictError(
            f"maintenance of {_name(table)}: its files are {age_s:.0f} s old, at most {REPLACE_WITHIN_S:.0f} s are "
            "allowed: it begins again by itself"
        )


def _name(table: Table) -> str:
    return ".".join(table.name())
