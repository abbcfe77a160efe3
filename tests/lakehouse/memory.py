"""An in-memory log and a clock that only moves when somebody waits."""

import threading
from collections import defaultdict
from collections.abc import Iterable

from contracts.contract import Contract, encode
from contracts.dead import DeadLetter
from contracts.dead import decode as decode_dead
from contracts.topics import BATCHES, CONTRACTS, DEAD, KAFKA_TOPICS, WATERMARKS
from contracts.watermark import Watermark, decode_watermark
from lakehouse.ports import Message
from lakehouse.registry import contract_key, dictionary_key
from lakehouse.state import Positions

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
    """Topics as lists; what a `MemoryLog` has flushed survives any client."""

    def __init__(self) -> None:
        self.topics: dict[str, list[list[Message]]] = {
            topic.name: [[] for _ in range(topic.partitions)] for topic in KAFKA_TOPICS
        }
        self.ids: dict[str, int] = defaultdict(int)
        self.lock = threading.Lock()

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

    def watermarks(self) -> dict[tuple[str, str], Watermark]:
        """The newest watermark by (origin, contract)."""
        marks = [decode_watermark(m.value or b"") for m in self.topics[WATERMARKS][0]]
        return {(mark.origin, mark.contract): mark for mark in marks}

    def dead(self) -> list[DeadLetter]:
        return [decode_dead(m.value or b"") for m in self.topics[DEAD][0]]


class MemoryLog:
    """One client of a broker."""

    def __init__(self, broker: Broker, clock: ManualClock) -> None:
        self._broker, self._clock = broker, clock
        self._at: Positions = {}
        self._unsent: list[tuple[str, bytes, bytes]] = []

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        return {topic: f"{topic}#{self._broker.ids[topic]}" for topic in topics}

    def read_all(self, topic: str) -> tuple[list[Message], Positions]:
        logs = self._broker.topics[topic]
        return [m for log in logs for m in log], {f"{topic}/{p}": len(log) for p, log in enumerate(logs)}

    def assign(self, topics: Iterable[str], positions: Positions) -> Positions:
        self._at = {}
        for topic in topics:
            for partition, log in enumerate(self._broker.topics[topic]):
                wanted = positions.get(f"{topic}/{partition}", 0)
                self._at[f"{topic}/{partition}"] = wanted if wanted <= len(log) else 0
        return dict(self._at)

    def ends(self, topics: Iterable[str]) -> Positions:
        return {f"{t}/{p}": len(log) for t in topics for p, log in enumerate(self._broker.topics[t])}

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        found: list[Message] = []
        for name, at in self._at.items():
            topic, _, partition = name.rpartition("/")
            log = self._broker.topics[topic][int(partition)]
            taken = log[at : at + messages_max - len(found)]
            self._at[name] = at + len(taken)
            found.extend(taken)
        if len(found) < messages_max:
            self._clock.advance(timeout_s)
        return found

    def lag(self, positions: Positions) -> int:
        return sum(
            len(self._broker.topics[name.rpartition("/")[0]][int(name.rpartition("/")[2])]) - at
            for name, at in positions.items()
        )

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        self._unsent.append((topic, key, value))

    def flush(self) -> None:
        for topic, key, value in self._unsent:
            self._broker.append(topic, value, key)
        self._unsent.clear()

    def close(self) -> None:
        """Nothing to release."""
