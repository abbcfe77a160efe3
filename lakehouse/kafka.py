"""The log behind the `Log` port: Kafka through confluent-kafka."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AdminClient

from contracts.topics import ORIGIN_HEADER
from lakehouse.errors import LogUnavailableError, ShareTakenError
from lakehouse.ports import Message
from lakehouse.positions import Positions, named, number_of, topic_of

ANSWER_TIMEOUT_S: Final = 10.0  # seconds; a broker that restarts is back in about five
FLUSH_TIMEOUT_S: Final = 30.0  # seconds; longer than a broker's restart, so that one does not abort a round
READ_AHEAD_KIB: Final = 32_768  # KiB; two rounds of a backlog: what is fetched while one is written
READ_AHEAD_MESSAGES: Final = 16_384  # two rounds as well; small ones take the client more than their own bytes
CLIENT_LOG_LEVEL: Final = 3  # the client's own lines from errors on; what matters comes through the callback
SILENT_POLLS_MAX: Final = 100  # polls without a message, together as long as the answer timeout
POLL_MESSAGES_MAX: Final = 1_000  # messages of one read when a topic is read whole
DEAL_WAIT_S: Final = 0.05  # seconds; how late a stop is noticed by one that has no share
PARTITION_BY_KEY: Final = -1  # the client's word for it
# Milliseconds after which a worker that says nothing loses its share; one that is restarted is back in about two.
SESSION_MS: Final = 10_000
HEARTBEAT_MS: Final = 1_000  # ms; a tenth of the session, so that a few may be late

_log = logging.getLogger(__name__)


class KafkaLog:
    """Makes the clients of one worker. `name` is the worker's: restarted under it, it gets its share back at once."""

    def __init__(self, bootstrap: str, name: str = "reader") -> None:
        self._name = name
        admin: dict[str, Any] = {"bootstrap.servers": bootstrap, "error_cb": _report, "log_level": CLIENT_LOG_LEVEL}
        self._admin = AdminClient(admin)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": f"fieldlake-{name}",  # the client insists on one; nothing is committed to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": READ_AHEAD_MESSAGES,
            "queued.max.messages.kbytes": READ_AHEAD_KIB,
            "fetch.wait.max.ms": 50,
            "fetch.error.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "error_cb": _report,
            "log_level": CLIENT_LOG_LEVEL,
        }
        self._bootstrap = bootstrap

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's id, which Kafka draws anew when a topic is created."""
        wanted = list(topics)
        try:
            futures = self._admin.describe_topics(TopicCollection(wanted), request_timeout=ANSWER_TIMEOUT_S)
            return {name: str(future.result().topic_id) for name, future in futures.items()}
        except KafkaException as error:
            raise LogUnavailableError(
                f"topics {', '.join(wanted)}: expected to find them: {error}: create the topics, start the broker"
            ) from error

    def follow(self, topic: str) -> "KafkaFollower":
        """Return a reader of a whole topic."""
        return KafkaFollower(Consumer(self._settings), topic)

    def share(self, group: str, topics: Iterable[str]) -> "KafkaShare":
        """Join a group."""
        settings = self._settings | {
            "group.id": group,
            "group.instance.id": f"{group}-{self._name}",
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "partition.assignment.strategy": "roundrobin",
        }
        return KafkaShare(lambda: Consumer(settings), tuple(topics))

    def publisher(self) -> "KafkaPublisher":
        """Return a writer."""
        return KafkaPublisher(producer(self._bootstrap))


class KafkaFollower:
    """Reads a whole topic."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._at: Positions = {}

    def rewind(self, positions: Positions | None = None) -> Positions:
        """Read on from these positions, or from the present end; see the port."""
        at: Positions = {}
        for partition in _partitions(self._consumer, self._topic):
            low, high = _range(self._consumer, self._topic, partition)
            wanted = high if positions is None else positions.get(named(self._topic, partition), low)
            at[named(self._topic, partition)] = wanted if low <= wanted <= high else low
        self._consumer.assign([Partition(self._topic, number_of(name), offset) for name, offset in at.items()])
        self._at = dict(at)
        return at

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        found = _poll(self._consumer, messages_max, timeout_s)
        for message in found:
            self._at[named(message.topic, message.partition)] = message.offset + 1
        return found

    def catch_up(self) -> list[Message]:
        """Return everything up to the present end."""
        behind = {
            name: end
            for name in self._at
            if (end := _range(self._consumer, self._topic, number_of(name))[1]) > self._at[name]
        }
        found: list[Message] = []
        silent_polls = 0
        while behind:
            read = self.poll(POLL_MESSAGES_MAX, ANSWER_TIMEOUT_S / SILENT_POLLS_MAX)
            found.extend(read)
            silent_polls = 0 if read else silent_polls + 1
            if silent_polls > SILENT_POLLS_MAX:
                raise LogUnavailableError(f"topic {self._topic}: expected to read it to its end: start the broker")
            # Compaction may have removed the last offsets, so the client's position decides and not the messages.
            for place in self._consumer.position([Partition(self._topic, number_of(name)) for name in behind]):
                name = named(place.topic, place.partition)
                self._at[name] = max(self._at[name], place.offset)
            behind = {name: end for name, end in behind.items() if self._at[name] < end}
        return found

    def ends(self) -> Positions:
        """Return the position after the last message of every partition."""
        return {
            named(self._topic, partition): _range(self._consumer, self._topic, partition)[1]
            for partition in _partitions(self._consumer, self._topic)
        }

    def close(self) -> None:
        """Release connections."""
        self._consumer.close()


class KafkaShare:
    """This worker's share of a group's partitions."""

    def __init__(self, connect: Callable[[], Consumer], topics: tuple[str, ...]) -> None:
        self._connect, self._topics = connect, topics
        self._partitions: list[Partition] = []
        self._dealt: frozenset[str] | None = None
        self._consumer = self._join()

    def dealt(self) -> frozenset[str] | None:
        """Return the partitions of a new share, once; see the port."""
        # Shares are dealt while messages are polled; a share that has not begun is paused, so nothing is read by that.
        if not self._partitions and self._dealt is None:
            self.poll(1, DEAL_WAIT_S)
        found, self._dealt = self._dealt, None
        return found

    def begin(self, positions: Positions) -> Positions:
        """Read the share from these positions on."""
        at: Positions = {}
        for partition in self._partitions:
            name = named(partition.topic, partition.partition)
            low, high = _range(self._consumer, partition.topic, partition.partition)
            wanted = positions.get(name, low)
            at[name] = wanted if low <= wanted <= high else low
        places = [Partition(topic_of(name), number_of(name), offset) for name, offset in at.items()]
        self._consumer.assign(places)
        self._consumer.resume(places)
        return at

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        return self._read(lambda: _poll(self._consumer, messages_max, timeout_s))

    def fill(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for all of them as long as the timeout."""
        return self._read(lambda: _fill(self._consumer, messages_max, timeout_s))

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the broker last told of."""
        behind = 0
        for name, at in positions.items():
            _, high = self._consumer.get_watermark_offsets(Partition(topic_of(name), number_of(name)), cached=True)
            behind += max(0, high - at)
        return behind

    def close(self) -> None:
        """Release connections; the share is kept for a restart under the same name, as long as a session lasts."""
        self._consumer.close()

    def _join(self) -> Consumer:
        self._partitions, self._dealt = [], None
        consumer = self._connect()
        consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke)
        return consumer

    def _read(self, read: Callable[[], list[Message]]) -> list[Message]:
        try:
            found = read()
        except ShareTakenError:
            # The client is of no use any more. A broker that is killed while we join takes our second try for another.
            self._consumer.close()
            self._consumer = self._join()
            raise
        # What was read of a share that is gone would be written for nothing.
        return [] if self._dealt is not None else found

    def _on_assign(self, consumer: Consumer, partitions: list[Partition]) -> None:
        consumer.assign(partitions)
        consumer.pause(partitions)
        self._partitions = partitions
        self._dealt = frozenset(named(partition.topic, partition.partition) for partition in partitions)

    def _on_revoke(self, consumer: Consumer, _partitions: list[Partition]) -> None:
        consumer.unassign()
        self._partitions = []


class KafkaPublisher:
    """An idempotent producer."""

    def __init__(self, client: Producer) -> None:
        self._producer = client
        self._undelivered: list[KafkaError] = []

    def publish(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int | None = None,
        on_offset: Callable[[int], None] | None = None,
    ) -> None:
        """Send a message; it is safe only after `flush`, which has told its offset by then."""

        def delivered(error: KafkaError | None, message: KafkaMessage) -> None:
            if error is not None:
                self._undelivered.append(error)
            elif on_offset is not None:
                on_offset(message.offset() or 0)

        at = PARTITION_BY_KEY if partition is None else partition
        try:
            self._producer.produce(topic, value, key, at, on_delivery=delivered)
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
            if error.fatal() or error.code() == KafkaError._FATAL:
                raise ShareTakenError(
                    f"worker: expected to keep its share of the log, found that one of the same name joined: {error}: "
                    "it joins again by itself; when this lasts, give every worker a name of its own"
                )
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


def _poll(consumer: Consumer, messages_max: int, timeout_s: float) -> list[Message]:
    """Return what is there, and wait for the first message only: the client itself would wait for all."""
    found = _fill(consumer, messages_max, 0.0)
    if not found and timeout_s > 0:
        found = _fill(consumer, 1, timeout_s)
        found += _fill(consumer, messages_max - 1, 0.0) if messages_max > 1 else []
    return found


def _fill(consumer: Consumer, messages_max: int, timeout_s: float) -> list[Message]:
    """Return up to so many messages; waits for all of them as long as the timeout."""
    try:
        return _messages(consumer.consume(messages_max, timeout_s))
    except KafkaException as error:
        raise LogUnavailableError(f"log: expected messages: {error}: check that the broker runs") from error


def _partitions(consumer: Consumer, topic: str) -> list[int]:
    try:
        found = consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise LogUnavailableError(f"topic {topic}: expected an answer: {error}: start the broker") from error
    if found.error is not None or not found.partitions:
        raise LogUnavailableError(f"topic {topic}: expected to find it: {found.error}: create the topics")
    return sorted(found.partitions)


def _range(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    try:
        low, high = consumer.get_watermark_offsets(Partition(topic, partition), timeout=ANSWER_TIMEOUT_S)
    except KafkaException as error:
        raise LogUnavailableError(f"{topic}/{partition}: expected its offsets: {error}") from error
    return low, high
