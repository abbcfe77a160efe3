"""The commit protocol of one round.

1. files        Data and state files of every table are written, side by side. Crash after: nothing refers to them, the
                round is read again.
2. quarantine   When the lake refused rows, the quarantine's snapshot comes before all others. Crash after: the round
                is read again; the quarantine's state says which rows it holds, they are not added twice.
3. tables       One snapshot per other table, side by side: rows, log positions and ranges become current at once.
                Crash between two tables: the round is read again from `begins`, tables that have it skip it.
4. receipts     Watermarks and dead letters, and only now. Crash before: watermarks are published again at start, or
                when the origin resends; dead letters when the round is read again.

A row's quarantine entry comes first because the table's state is what ends the replay: a table ahead of the quarantine
would skip the batch for ever and lose the row. A watermark comes last because it frees the origin's only other copy.
The next round starts only after step 4, so every message before a state's `begins` is complete everywhere.
"""

from collections.abc import Mapping
from concurrent.futures import Executor, Future
from typing import TypeVar

from contracts import dead, watermark
from contracts.errors import OperatorMustActError
from contracts.topics import DEAD, WATERMARKS
from contracts.watermark import Watermark
from lakehouse.plan import Round
from lakehouse.ports import Fault, LakeTable, Log, Step, Written
from lakehouse.rows import QUARANTINE

_T = TypeVar("_T")


def commit_tables(plan: Round, tables: Mapping[str, LakeTable], pool: Executor, fault: Fault) -> dict[str, int]:
    """Steps 1 to 3. Returns the new snapshot id of every table that changed.

    When one table fails, the others are still waited for: no commit of this process may be under way once it
    recovers. Errors: those of `LakeTable.write` and `LakeTable.commit`; the gravest of several is raised.
    """
    fault(Step.PLANNED)
    # Step 1.
    written: dict[str, Written] = _all(
        {c.contract: pool.submit(tables[c.contract].write, c.rows, c.state) for c in plan.changes}
    )
    fault(Step.FILES_WRITTEN)
    snapshots: dict[str, int] = {}
    # Step 2.
    if plan.refused_rows:
        snapshots[QUARANTINE] = tables[QUARANTINE].commit(written.pop(QUARANTINE))
        fault(Step.QUARANTINE_COMMITTED, QUARANTINE)

    def commit_one(name: str) -> int:
        snapshot_id = tables[name].commit(written[name])
        fault(Step.TABLE_COMMITTED, name)
        return snapshot_id

    # Step 3.
    snapshots.update(_all({name: pool.submit(commit_one, name) for name in written}))
    fault(Step.TABLES_COMMITTED)
    return snapshots


def send_receipts(watermarks: list[Watermark], plan: Round | None, log: Log, fault: Fault) -> None:
    """Step 4. Raises LogUnavailableError."""
    for mark in watermarks:
        log.publish(WATERMARKS, watermark.key(mark), watermark.encode(mark))
    for letter in plan.dead if plan is not None else ():
        log.publish(DEAD, (letter.origin or "").encode(), dead.encode(letter))
    log.flush()
    fault(Step.RECEIPTS_SENT)


def _all(futures: dict[str, Future[_T]]) -> dict[str, _T]:
    """Wait for every future, then return the results or raise a failure, first one that a person must mend."""
    failures = [error for future in futures.values() if (error := future.exception()) is not None]
    if failures:
        raise next((error for error in failures if isinstance(error, OperatorMustActError)), failures[0])
    return {name: future.result() for name, future in futures.items()}
