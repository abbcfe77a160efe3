"""The mirror's tables and log in memory, with transactions that can be lost."""

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from contracts import dead
from contracts.crm_change import CrmMessage, encode, link
from contracts.dead import DeadLetter
from lakehouse.errors import LogUnavailableError, StoreUnavailableError, ValueRefusedError
from lakehouse.mirror.kinds import RecordKind
from lakehouse.mirror.merge import swept
from lakehouse.mirror.model import Key, Record, Scope, SnapshotKey
from lakehouse.mirror.ports import LogMessage, Positions, Transaction

PARTITIONS = 3
REFUSED_TEXT = b"\\ud800"  # stands for whatever a database does not take


class MemoryTransaction:
    """Works on a copy."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[Key, Record]] = {}
        self.at: dict[str, Positions] = {}
        self.marks: dict[SnapshotKey, set[str]] = {}
        self.ends: dict[SnapshotKey, int] = {}
        self.complete: dict[Scope, int] = {}

    def positions(self, topic_id: str) -> Positions:
        return dict(self.at.get(topic_id, {}))

    def move(self, topic_id: str, positions: Positions) -> None:
        self.at[topic_id] = self.at.get(topic_id, {}) | positions

    def swept(self) -> Mapping[Scope, int]:
        return dict(self.complete)

    def read(self, kind: RecordKind, keys: Collection[Key]) -> dict[Key, Record]:
        table = self.tables.get(kind.table, {})
        return {key: table[key] for key in keys if key in table}

    def write(self, kind: RecordKind, records: Mapping[Key, Record]) -> None:
        for record in records.values():
            if any(REFUSED_TEXT in bytes(known.value) for known in record.fields.values()):
                raise ValueRefusedError("refused")
        self.tables[kind.table] = {**self.tables.get(kind.table, {}), **records}

    def mark(self, snapshot: SnapshotKey, records: Collection[str]) -> None:
        self.marks.setdefault(snapshot, set()).update(records)

    def end(self, snapshot: SnapshotKey, records: int) -> None:
        self.ends[snapshot] = records

    def sweep_if_complete(self, snapshot: SnapshotKey, kind: RecordKind) -> bool:
        marked = self.marks.get(snapshot, set())
        if len(marked) < self.ends.get(snapshot, len(marked) + 1):
            return False
        for key, record in self.tables.get(kind.table, {}).items():
            # By the marks and not by when it was seen, so that the two ways to say it are compared.
            if Scope(*key[:3]) == snapshot.scope and key[3] not in marked:
                self.tables[kind.table][key] = swept(record, snapshot.at_us)
        self.complete[snapshot.scope] = snapshot.at_us
        return True


class MemoryMirror:
    """What was committed; `lose_answer` makes the next commit land without saying so, `down` refuses everything."""

    def __init__(self) -> None:
        self.committed = MemoryTransaction()
        self.lose_answer = self.down = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if self.down:
            raise StoreUnavailableError("down")
        working = copy.deepcopy(self.committed)
        yield working
        self.committed = working
        if self.lose_answer:
            self.lose_answer = False
            raise StoreUnavailableError("no answer")

    def close(self) -> None:
        """Nothing is held."""

    def records(self) -> dict[Key, Record]:
        return {key: record for table in self.committed.tables.values() for key, record in table.items()}


class Topic:
    """The changes topic and the dead letters; they outlive processes."""

    def __init__(self) -> None:
        self.identity = "topic-1"
        self.partitions: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self.letters: list[DeadLetter] = []
        self.down = False
        self.begin = 0  # offset of the oldest message that every partition still has

    def put(self, message: CrmMessage | bytes, partition: int | None = None) -> None:
        value = message if isinstance(message, bytes) else encode(message)
        chosen = sum(link(message)) if not isinstance(message, bytes) else 0
        self.partitions[(chosen if partition is None else partition) % PARTITIONS].append(value)


class MemoryChanges:
    """One process's reader of a topic."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._at: Positions = {}

    def identity(self) -> str:
        self._must_be_up()
        return self._topic.identity

    def seek(self, positions: Positions) -> Positions:
        self._must_be_up()
        begin = self._topic.begin
        found = {p: positions.get(p, begin) for p in range(PARTITIONS)}
        self._at = {p: at if begin <= at <= len(self._topic.partitions[p]) else begin for p, at in found.items()}
        return dict(self._at)

    def poll(self, messages_max: int, timeout_s: float) -> list[LogMessage]:
        self._must_be_up()
        found: list[LogMessage] = []
        for partition, values in enumerate(self._topic.partitions):
            begin = self._at[partition]
            some = values[begin : begin + messages_max - len(found)]
            found += [LogMessage(partition, begin + n, value) for n, value in enumerate(some)]
            self._at[partition] += len(some)
        return found

    def lag(self, positions: Positions) -> int:
        return sum(len(values) - positions.get(p, 0) for p, values in enumerate(self._topic.partitions))

    def refuse(self, letters: Collection[bytes]) -> None:
        self._must_be_up()
        self._topic.letters += [dead.decode(letter) for letter in letters]

    def close(self) -> None:
        """Nothing is held."""

    def _must_be_up(self) -> None:
        if self._topic.down:
            raise LogUnavailableError("down")
