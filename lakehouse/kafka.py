"""The log behind the `Log` port: Kafka through confluent-kafka, partitions assigned by hand, no consumer group."""

import logging
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AdminClient

from contracts.topics import ORIGIN_HEADER
from lakehouse.errors import LogUnavailableError
from lakehouse.ports import Message
from lakehouse.state import Positions

ANSWER_TIMEOUT_S: Final = 10.0  # seconds; a broker that restarts is back in about five
FLUSH_TIMEOUT_S: Final = 30.0  # seconds; longer than a broker's restart, so that one does not abort a round
READ_AHEAD_KIB: Final = 65_536  # KiB; what the client fetches while a round is committed
CLIENT_LOG_LEVEL: Final = 3  # the client's own lines from errors on; what matters comes through the callback
SILENT_POLLS_MAX: Final = 100  # polls without a message, together as long as the answer timeout
POLL_MESSAGES_MAX: Final = 1_000  # messages of one read when a topic is read whole

_log = logging.getLogger(__name__)


class KafkaLog:
    """One consumer and one idempotent producer."""

    def __init__(self, bootstrap: str) -> None:
        admin: dict[str, Any] = {"bootstrap.servers": bootstrap, "error_cb": _report, "log_level": CLIENT_LOG_LEVEL}
        self._admin = AdminClient(admin)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": "fieldlake-ingest",  # the client insists on one; nothing is committed to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": READ_AHEAD_KIB,
            "fetch.wait.max.ms": 50,
            "fetch.error.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "error_cb": _report,
            "log_level": CLIENT_LOG_LEVEL,
        }
        self._consumer = Consumer(self._settings)
        self._producer = producer(bootstrap)
        self._undelivered: list[KafkaError] = []

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's id, which Kafka draws anew when a topic is created."""
        try:
            futures = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=ANSWER_TIMEOUT_S)
            return {name: str(future.result().topic_id) for name, future in futures.items()}
        except KafkaException as error:
            raise LogUnavailableError(
                f"topics {', '.join(topics)}: expected to find them: {error}: create the topics, start the broker"
            ) from error

    def read_all(self, topic: str) -> tuple[list[Message], Positions]:
        """Return everything up to the present end of a topic, and the positions after it."""
        consumer = Consumer(self._settings)
        try:
            ends = {p: self._range(topic, p)[1] for p in self._partitions(topic)}
            starts = {p: self._range(topic, p)[0] for p in ends}
            consumer.assign([Partition(topic, p, OFFSET_BEGINNING) for p in ends])
            open_ends = {p for p in ends if starts[p] < ends[p]}
            found: list[Message] = []
            silent_polls = 0
            while open_ends:
                batch = consumer.consume(POLL_MESSAGES_MAX, ANSWER_TIMEOUT_S / SILENT_POLLS_MAX)
                found.extend(_messages(batch))
                silent_polls = 0 if batch else silent_polls + 1
                if silent_polls > SILENT_POLLS_MAX:
                    raise LogUnavailableError(f"topic {topic}: expected to read it to its end: start the broker")
                # Compaction may have removed the last offsets, so the position decides and not the messages.
                at = {p.partition: p.offset for p in consumer.position([Partition(topic, p) for p in open_ends])}
                open_ends = {p for p in open_ends if at[p] < ends[p]}
            return [m for m in found if m.offset < ends[m.partition]], {f"{topic}/{p}": end for p, end in ends.items()}
        except KafkaException as error:
            raise LogUnavailableError(f"topic {topic}: expected to read it from its start: {error}") from error
        finally:
            consumer.close()

    def assign(self, topics: Iterable[str], positions: Positions) -> Positions:
        """Read all partitions of the topics from these positions on; see the port."""
        assigned: Positions = {}
        for topic in topics:
            for partition in self._partitions(topic):
                low, high = self._range(topic, partition)
                wanted = positions.get(f"{topic}/{partition}", low)
                assigned[f"{topic}/{partition}"] = wanted if low <= wanted <= high else low
        self._consumer.assign(
            [Partition(name.rpartition("/")[0], int(name.rpartition("/")[2]), at) for name, at in assigned.items()]
        )
        return assigned

    def ends(self, topics: Iterable[str]) -> Positions:
        """Return the position after the last message of every partition of the topics."""
        return {f"{t}/{p}": self._range(t, p)[1] for t in topics for p in self._partitions(t)}

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for them as long as the timeout."""
        try:
            return _messages(self._consumer.consume(messages_max, timeout_s))
        except KafkaException as error:
            raise LogUnavailableError(f"log: expected messages: {error}: check that the broker runs") from error

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the broker last told of."""
        behind = 0
        for name, at in positions.items():
            topic, _, partition = name.rpartition("/")
            _, high = self._consumer.get_watermark_offsets(Partition(topic, int(partition)), cached=True)
            behind += max(0, high - at)
        return behind

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Send a message; it is safe only after `flush`."""
        try:
            self._producer.produce(topic, value, key, on_delivery=self._delivered)
        except (KafkaException, BufferError) as error:
            raise LogUnavailableError(f"topic {topic}: expected to take a message: {error}") from error

    def flush(self) -> None:
        """Return once the log holds everything that was published."""
        waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        errors, self._undelivered = self._undelivered, []
        if waiting or errors:
            raise LogUnavailableError(
                f"log: expected every message to be acknowledged within {FLUSH_TIMEOUT_S} s, {waiting} are open, "
                f"refused: {errors[:3]}: check that the broker runs and has disk"
            )

    def close(self) -> None:
        """Release connections."""
        self._producer.flush(ANSWER_TIMEOUT_S)
        self._consumer.close()

    def _delivered(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is not None:
            self._undelivered.append(error)

    def _partitions(self, topic: str) -> list[int]:
        try:
            found = self._consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
        except KafkaException as error:
            raise LogUnavailableError(f"topic {topic}: expected an answer: {error}: start the broker") from error
        if found.error is not None or not found.partitions:
            raise LogUnavailableError(f"topic {topic}: expected to find it: {found.error}: create the topics")
        return sorted(found.partitions)

    def _range(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(Partition(topic, partition), timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise LogUnavailableError(f"{topic}/{partition}: expected its offsets: {error}") from error
        return low, high


def producer(bootstrap: str) -> Producer:
    """Return a producer whose messages are written once and by every replica before they count as sent."""
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": 0,
        "reconnect.backoff.max.ms": 500,
        "error_cb": _report,
        "log_level": CLIENT_LOG_LEVEL,
    }
    return Producer(settings)


def _messages(read: list[KafkaMessage]) -> list[Message]:
    found: list[Message] = []
    for message in read:
        if (error := message.error()) is not None:
            raise LogUnavailableError(f"log: expected messages, found {error}: check that the broker runs")
        headers = dict(message.headers() or ())
        origin = headers.get(ORIGIN_HEADER)
        found.append(
            Message(
                topic=message.topic() or "",
                partition=message.partition() or 0,
                offset=message.offset() or 0,
                key=_bytes(message.key()),
                value=_bytes(message.value()),
                origin=_bytes(origin or b"").decode("ascii", "replace") if origin else None,  # type: ignore[union-attr]
            )
        )
    return found


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _report(error: KafkaError) -> None:
    _log.warning("log: %s", error)
