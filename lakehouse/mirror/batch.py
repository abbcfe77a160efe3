"""A batch of messages, sorted by what has to be done for it. Pure: bytes in, values out."""

from collections import defaultdict
from collections.abc import Iterable

from msgspec import UNSET, Struct

from contracts import dead
from contracts.crm_change import CrmChange, CrmMessage, decode
from contracts.dead import DeadLetter
from contracts.errors import CrmChangeError
from contracts.topics import CRM_CHANGES
from lakehouse.mirror.kinds import RecordKind, kind_of
from lakehouse.mirror.model import Key, Scope, SnapshotKey
from lakehouse.mirror.ports import LogMessage, Positions

REFUSED_BY_DATABASE = "refused_by_database"


class Taken(Struct, frozen=True, gc=False):
    """A message that was understood, and where it came from."""

    source: LogMessage
    message: CrmMessage

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset."""
        return self.source.partition, self.source.offset


class Batch(Struct, frozen=True):
    """`taken` in the order of the log, a dead letter with its reason for each of the others, positions after all."""

    taken: tuple[Taken, ...]
    refused: tuple[DeadLetter, ...]
    ends: Positions


class Work(Struct, frozen=True):
    """What taken messages ask for: changes by table and record, what is in snapshots, how many records they have."""

    changes: dict[str, dict[Key, list[CrmChange]]]
    kinds: dict[str, RecordKind]
    marks: dict[SnapshotKey, set[str]]
    ends: dict[SnapshotKey, int]


def batch_of(messages: Iterable[LogMessage], now_ms: int) -> Batch:
    """Decode messages; what cannot be followed becomes a dead letter."""
    taken: list[Taken] = []
    refused: list[DeadLetter] = []
    ends: Positions = {}
    for source in messages:
        ends[source.partition] = source.offset + 1
        try:
            taken.append(Taken(source, decode(source.value)))
        except CrmChangeError as error:
            refused.append(letter_of(source, error.reason, str(error), now_ms))
    return Batch(tuple(taken), tuple(refused), ends)


def work_of(taken: Iterable[Taken]) -> Work:
    """Sort messages by table and record."""
    changes: dict[str, dict[Key, list[CrmChange]]] = {}
    kinds: dict[str, RecordKind] = {}
    marks: dict[SnapshotKey, set[str]] = defaultdict(set)
    ends: dict[SnapshotKey, int] = {}
    for one in taken:
        message = one.message
        if not isinstance(message, CrmChange):
            snapshot = _snapshot(message, message.snapshot.at_us, message.snapshot.id)
            ends[snapshot] = max(message.records, ends.get(snapshot, 0))
            continue
        kind = kind_of(message.object)
        kinds[kind.table] = kind
        key = (message.system, message.tenant, message.object, message.record)
        changes.setdefault(kind.table, {}).setdefault(key, []).append(message)
        if message.snapshot is not UNSET:
            marks[_snapshot(message, message.snapshot.at_us, message.snapshot.id)].add(message.record)
    return Work(changes, kinds, dict(marks), ends)


def letter_of(source: LogMessage, reason: str, detail: str, now_ms: int) -> DeadLetter:
    """Return the dead letter of a message."""
    place = f"{CRM_CHANGES}/{source.partition}/{source.offset}"
    return DeadLetter(place, None, reason, detail, now_ms, source.value)


def encoded(letters: Iterable[DeadLetter]) -> list[bytes]:
    """Return dead letters as they go on the log."""
    return [dead.encode(letter) for letter in letters]


def _snapshot(message: CrmMessage, at_us: int, name: str) -> SnapshotKey:
    return SnapshotKey(Scope(message.system, message.tenant, message.object), at_us, name)
