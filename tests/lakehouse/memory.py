"""An in-memory log with groups, and a clock that only moves when somebody waits."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from contracts.contract import Contract, encode
from contracts.dead import DeadLetter
from contracts.dead import decode as decode_dead
from contracts.topics import BATCHES, CONTRACTS, DEAD, KAFKA_TOPICS, WATERMARKS
from contracts.watermark import Watermark, decode_watermark
from lakehouse.ports import Message
from lakehouse.positions import Positions, named, number_of, topic_of
from lakehouse.registry import contract_key, dictionary_key

PARTITIONS = {topic.name: topic.partitions for topic in KAFKA_TOPICS}


class ManualClock:
    """Time moves when it is told to, or when a log is waited for."""

    def __init__(self, now_ms: int = 1_760_000_200_000) -> None:
        self.at_ms = float(now_ms)

    def now_ms(self) -> int:
        return int(self.at_ms)

    def monotonic_s(self) -> float:
        return self.at_ms / 1_000

    def advance(self, seconds: float) -> None:
        self.at_ms += seconds * 1_000


class Broker:
    """Topics as lists; what a publisher has flushed survives any client."""

    def __init__(self) -> None:
        self.topics: dict[str, list[list[Message]]] = {
            topic.name: [[] for _ in range(topic.partitions)] for topic in KAFKA_TOPICS
        }
        self.ids: dict[str, int] = defaultdict(int)
        self.groups: dict[str, list[MemoryShare]] = defaultdict(list)
        self.untold: set[str] = set()  # topics whose followers hear of what comes only when they ask for the end
        self.lock = threading.RLock()

    def append(
        self, topic: str, value: bytes | None, key: bytes | None = None, origin: str | None = None, partition: int = 0
    ) -> Message:
        with self.lock:
            log = self.topics[topic][partition]
            message = Message(topic, partition, len(log), key, value, origin)
            log.append(message)
            return message

    def batch(self, origin: str, value: bytes) -> Message:
        """Append a batch where its origin's batches go."""
        partition = sum(origin.encode()) % PARTITIONS[BATCHES]
        return self.append(BATCHES, value, origin.encode(), origin, partition)

    def publish(self, contract: Contract) -> None:
        self.append(CONTRACTS, encode(contract), contract_key(contract).encode())

    def publish_dictionary(self, number: int, raw: bytes) -> None:
        self.append(CONTRACTS, raw, dictionary_key(number).encode())

    def wipe(self, topic: str) -> None:
        """Delete a topic and create it anew."""
        self.topics[topic] = [[] for _ in range(PARTITIONS[topic])]
        self.ids[topic] += 1

    def read(self, at: Positions, messages_max: int) -> list[Message]:
        """Return messages from some positions on, and move those."""
        found: list[Message] = []
        with self.lock:
            for name, offset in at.items():
                taken = self.topics[topic_of(name)][number_of(name)][offset : offset + messages_max - len(found)]
                at[name] = offset + len(taken)
                found.extend(taken)
        return found

    def places(self, names: Iterable[str], positions: Positions | None) -> Positions:
        """Return where reading begins: at the end without positions, at the start where the log has no such place."""
        at: Positions = {}
        for name in names:
            end = len(self.topics[topic_of(name)][number_of(name)])
            wanted = end if positions is None else positions.get(name, 0)
            at[name] = wanted if wanted <= end else 0
        return at

    def deal(self, group: str) -> None:
        """Deal all partitions of a group's topics out among its members."""
        members = self.groups[group]
        shares: dict[int, set[str]] = defaultdict(set)
        topics = sorted({topic for member in members for topic in member.topics})
        names = [named(topic, number) for topic in topics for number in range(PARTITIONS[topic])]
        for at, name in enumerate(names):
            shares[at % len(members)].add(name)
        for at, member in enumerate(members):
            member.give(frozenset(shares[at]))

    def watermarks(self) -> dict[tuple[str, str], Watermark]:
        """The newest watermark by (origin, contract)."""
        marks = [decode_watermark(m.value or b"") for m in self.topics[WATERMARKS][0]]
        return {(mark.origin, mark.contract): mark for mark in marks}

    def dead(self) -> list[DeadLetter]:
        return [decode_dead(m.value or b"") for m in self.topics[DEAD][0]]


class MemoryLog:
    """One worker's clients of a broker."""

    def __init__(self, broker: Broker, clock: ManualClock) -> None:
        self._broker, self._clock = broker, clock

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        return {topic: f"{topic}#{self._broker.ids[topic]}" for topic in topics}

    def follow(self, topic: str) -> "MemoryFollower":
        return MemoryFollower(self._broker, self._clock, topic)

    def share(self, group: str, topics: Iterable[str], in_rounds: bool = False) -> "MemoryShare":
        return MemoryShare(self._broker, self._clock, group, tuple(topics))

    def publisher(self) -> "MemoryPublisher":
        return MemoryPublisher(self._broker)


class MemoryFollower:
    """Reads a whole topic."""

    def __init__(self, broker: Broker, clock: ManualClock, topic: str) -> None:
        self._broker, self._clock, self._topic = broker, clock, topic
        self._names = [named(topic, number) for number in range(PARTITIONS[topic])]
        self._at: Positions = {}

    def rewind(self, positions: Positions | None = None) -> Positions:
        self._at = self._broker.places(self._names, positions)
        return dict(self._at)

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        if self._topic in self._broker.untold and timeout_s == 0.0:
            return []
        found = self._broker.read(self._at, messages_max)
        if not found:
            self._clock.advance(timeout_s)
        return found

    def catch_up(self) -> list[Message]:
        return self._broker.read(self._at, 1_000_000)

    def ends(self) -> Positions:
        return self._broker.places(self._names, None)

    def close(self) -> None:
        """Nothing to release."""


class MemoryShare:
    """A member of a group. One that has left unheard, as a zombie has, goes on with what it had."""

    def __init__(self, broker: Broker, clock: ManualClock, group: str, topics: tuple[str, ...]) -> None:
        self._broker, self._clock, self._group, self.topics = broker, clock, group, topics
        self._names: frozenset[str] = frozenset()
        self._dealt: frozenset[str] | None = None
        self._at: Positions = {}
        broker.groups[group].append(self)
        broker.deal(group)

    def give(self, names: frozenset[str]) -> None:
        """Deal a share."""
        if names != self._names or not names:
            self._names = self._dealt = names
            self._at = {}

    def dealt(self) -> frozenset[str] | None:
        found, self._dealt = self._dealt, None
        return found

    def begin(self, positions: Positions) -> Positions:
        self._at = self._broker.places(sorted(self._names), positions)
        return dict(self._at)

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        found = self._broker.read(self._at, messages_max)
        if not found:
            self._clock.advance(timeout_s)
        return found

    def fill(self, messages_max: int, timeout_s: float) -> list[Message]:
        found = self._broker.read(self._at, messages_max)
        if len(found) < messages_max:
            self._clock.advance(timeout_s)
        return found

    def lag(self, positions: Positions) -> int:
        return sum(len(self._broker.topics[topic_of(name)][number_of(name)]) - at for name, at in positions.items())

    def close(self) -> None:
        self.expire()

    def expire(self) -> None:
        """Lose the place in the group without hearing of it."""
        members = self._broker.groups[self._group]
        if self in members:
            members.remove(self)
            if members:
                self._broker.deal(self._group)


class MemoryPublisher:
    """Its messages are in the log once they are flushed."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._unsent: list[tuple[str, bytes, bytes, int, Callable[[int], None] | None]] = []

    def publish(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int | None = None,
        on_offset: Callable[[int], None] | None = None,
    ) -> None:
        self._unsent.append((topic, key, value, partition or 0, on_offset))

    def flush(self) -> None:
        for topic, key, value, partition, on_offset in self._unsent:
            message = self._broker.append(topic, value, key, partition=partition)
            if on_offset is not None:
                on_offset(message.offset)
        self._unsent.clear()

    def close(self) -> None:
        """Nothing to release."""
