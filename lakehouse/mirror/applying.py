"""What a batch does to the tables, inside one transaction."""

from collections.abc import Collection, Sequence
from typing import NoReturn

from lakehouse.errors import ValueRefusedError
from lakehouse.mirror.batch import Taken, Work, work_of
from lakehouse.mirror.kinds import kind_of
from lakehouse.mirror.merge import merge, swept
from lakehouse.mirror.model import NEVER_US, UNKNOWN, Key, Record, Scope, SnapshotKey
from lakehouse.mirror.ports import MirrorStore, Transaction


def write(transaction: Transaction, work: Work) -> int:
    """Merge changes into the records that are known; return how many records are different now."""
    complete = transaction.swept()
    written = 0
    for table, changes in work.changes.items():
        kind = work.kinds[table]
        known = transaction.read(kind, changes.keys())
        merged: dict[Key, Record] = {}
        for key, some in changes.items():
            before = known.get(key)
            if before is None:
                # Were it in a complete snapshot, it would have come with it.
                before = swept(UNKNOWN, complete.get(Scope(*key[:3]), NEVER_US))
            after = merge(before, some)
            if after != before:
                merged[key] = after
        if merged:
            transaction.write(kind, merged)
            written += len(merged)
    return written


def sweep(transaction: Transaction, work: Work) -> int:
    """Note what is in snapshots, and delete what a complete one did not hold; return how many became complete.

    One that began before a complete one of its object says nothing that this one did not.
    """
    complete = transaction.swept()
    touched = sorted(work.marks.keys() | work.ends.keys(), key=_began)
    completed = 0
    for snapshot in touched:
        if snapshot.at_us <= complete.get(snapshot.scope, NEVER_US):
            continue
        if records := work.marks.get(snapshot):
            transaction.mark(snapshot, records)
        if (count := work.ends.get(snapshot)) is not None:
            transaction.end(snapshot, count)
        if transaction.sweep_if_complete(snapshot, kind_of(snapshot.scope.object)):
            complete = {**complete, snapshot.scope: snapshot.at_us}
            completed += 1
    return completed


def refused_values(store: MirrorStore, taken: Sequence[Taken]) -> dict[tuple[int, int], str]:
    """Return why the database does not take them, by partition and offset, of all messages that it does not take."""
    try:
        _try(store, taken)
    except _UndoneError:
        return {}
    except ValueRefusedError as error:
        if len(taken) == 1:
            return {taken[0].place: str(error)}
        middle = len(taken) // 2
        return refused_values(store, taken[:middle]) | refused_values(store, taken[middle:])


def without(taken: Collection[Taken], places: Collection[tuple[int, int]]) -> tuple[Taken, ...]:
    """Return the messages that are not from these places."""
    return tuple(one for one in taken if one.place not in places)


class _UndoneError(Exception):
    """Leaves a transaction so that nothing of it takes effect."""


def _try(store: MirrorStore, taken: Sequence[Taken]) -> NoReturn:
    with store.transaction() as transaction:
        write(transaction, work_of(taken))
        raise _UndoneError
    raise AssertionError("a transaction swallowed an error")


def _began(snapshot: SnapshotKey) -> int:
    return snapshot.at_us
