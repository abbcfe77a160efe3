"""The changes topic behind the `ChangeLog` port: Kafka through confluent-kafka, partitions assigned by hand."""

import logging
from collections.abc import Collection, Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from contracts.crm_change import CrmMessage, encode, link
from contracts.topics import CRM_CHANGES, DEAD
from lakehouse.errors import LogUnavailableError
from lakehouse.kafka import ANSWER_TIMEOUT_S, CLIENT_LOG_LEVEL, FLUSH_TIMEOUT_S, producer
from lakehouse.mirror.ports import LogMessage, Positions

READ_AHEAD_KIB: Final = 16_384  # KiB that the client fetches while a batch is applied: some batches of usual changes
PRODUCED_AHEAD_MAX: Final = 10_000  # messages given to the client before its answers are taken in

_log = logging.getLogger(__name__)


class KafkaChanges:
    """One consumer of all partitions, and a producer for dead letters."""

    def __init__(self, bootstrap: str) -> None:
        common: dict[str, Any] = {"bootstrap.servers": bootstrap, "error_cb": _report, "log_level": CLIENT_LOG_LEVEL}
        self._bootstrap = bootstrap
        self._admin = AdminClient(common)
        self._consumer = Consumer(
            common
            | {
                "group.id": "fieldlake-mirror",  # the client insists on one; nothing is committed to it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "queued.max.messages.kbytes": READ_AHEAD_KIB,
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 50,
                "reconnect.backoff.max.ms": 500,
            }
        )

    def identity(self) -> str:
        """See the port."""
        try:
            described = self._admin.describe_topics(TopicCollection([CRM_CHANGES]), request_timeout=ANSWER_TIMEOUT_S)
            return str(described[CRM_CHANGES].result().topic_id)
        except KafkaException as error:
            raise LogUnavailableError(
                f"topic {CRM_CHANGES}: expected to find it: {error}: create the topics, start the broker"
            ) from error

    def seek(self, positions: Positions) -> Positions:
        """See the port."""
        try:
            partitions = (
                self._consumer.list_topics(CRM_CHANGES, timeout=ANSWER_TIMEOUT_S).topics[CRM_CHANGES].partitions
            )
            begins: Positions = {}
            for partition in sorted(partitions):
                low, high = self._consumer.get_watermark_offsets(
                    TopicPartition(CRM_CHANGES, partition), timeout=ANSWER_TIMEOUT_S
                )
                wanted = positions.get(partition, low)
                begins[partition] = wanted if low <= wanted <= high else low
            self._consumer.assign([TopicPartition(CRM_CHANGES, partition, at) for partition, at in begins.items()])
        except KafkaException as error:
            raise LogUnavailableError(
                f"topic {CRM_CHANGES}: expected its offsets: {error}: start the broker"
            ) from error
        if not begins:
            raise LogUnavailableError(f"topic {CRM_CHANGES}: expected partitions, found none: create the topics")
        return begins

    def poll(self, messages_max: int, timeout_s: float) -> list[LogMessage]:
        """See the port."""
        try:
            return _messages(self._consumer.consume(messages_max, timeout_s))
        except KafkaException as error:
            raise LogUnavailableError(f"topic {CRM_CHANGES}: expected messages: {error}: start the broker") from error

    def lag(self, positions: Positions) -> int:
        """See the port."""
        behind = 0
        for partition, at in positions.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(CRM_CHANGES, partition), cached=True)
            behind += max(0, high - at)
        return behind

    def refuse(self, letters: Collection[bytes]) -> None:
        """See the port."""
        _produce(self._bootstrap, DEAD, ((CRM_CHANGES.encode(), letter) for letter in letters))

    def close(self) -> None:
        """See the port."""
        self._consumer.close()


def publish_changes(bootstrap: str, messages: Iterable[CrmMessage]) -> None:
    """Write changes on the log as a connector does; returns once it holds them. Raises LogUnavailableError."""
    _produce(bootstrap, CRM_CHANGES, ((link(message), encode(message)) for message in messages))


def _produce(bootstrap: str, topic: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    refused: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            refused.append(error)

    sender = producer(bootstrap)
    for number, (key, value) in enumerate(pairs, start=1):
        try:
            sender.produce(topic, value, key, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise LogUnavailableError(f"topic {topic}: expected to take a message: {error}") from error
        if number % PRODUCED_AHEAD_MAX == 0:
            sender.flush(FLUSH_TIMEOUT_S)
    if (waiting := sender.flush(FLUSH_TIMEOUT_S)) or refused:
        raise LogUnavailableError(
            f"topic {topic}: expected to take every message, {waiting} are open, refused: {refused[:3]}: check that "
            "the broker runs and has disk"
        )


def _messages(read: list[Message]) -> list[LogMessage]:
    found: list[LogMessage] = []
    for message in read:
        if (error := message.error()) is not None:
            raise LogUnavailableError(f"topic {CRM_CHANGES}: expected messages, found {error}: start the broker")
        value = message.value()
        found.append(
            LogMessage(
                message.partition() or 0,
                message.offset() or 0,
                value if isinstance(value, bytes) else b"",
            )
        )
    return found


def _report(error: KafkaError) -> None:
    _log.warning("log: %s", error)
