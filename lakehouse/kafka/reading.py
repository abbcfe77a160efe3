"""What is read from a client: messages as the ports know them, and what a topic holds. Errors: LogUnavailableError."""

import logging
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import TopicPartition as Partition

from contracts.topics import ORIGIN_HEADER
from lakehouse.errors import LogUnavailableError, ShareTakenError
from lakehouse.ports import Message
from lakehouse.positions import Positions, number_of, topic_of

ANSWER_TIMEOUT_S: Final = 10.0  # seconds; a broker that restarts is back in about five
CLIENT_LOG_LEVEL: Final = 3  # the client's own lines from errors on; what matters comes through the callback

_log = logging.getLogger(__name__)


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


def report(error: KafkaError) -> None:
    """Log what a client says of the broker by itself."""
    _log.warning("log: %s", error)


def poll(consumer: Consumer, messages_max: int, timeout_s: float) -> list[Message]:
    """Return what is there, and wait for the first message only: the client itself would wait for all."""
    found = fill(consumer, messages_max, 0.0)
    if not found and timeout_s > 0:
        found = fill(consumer, 1, timeout_s)
        found += fill(consumer, messages_max - 1, 0.0) if messages_max > 1 else []
    return found


def fill(consumer: Consumer, messages_max: int, timeout_s: float) -> list[Message]:
    """Return up to so many messages; waits for all of them as long as the timeout."""
    try:
        return _messages(consumer.consume(messages_max, timeout_s))
    except KafkaException as error:
        raise LogUnavailableError(f"log: expected messages: {error}: check that the broker runs") from error


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Return the partitions of a topic."""
    try:
        found = consumer.list_topics(topic, timeout=ANSWER_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise LogUnavailableError(f"topic {topic}: expected an answer: {error}: start the broker") from error
    if found.error is not None or not found.partitions:
        raise LogUnavailableError(f"topic {topic}: expected to find it: {found.error}: create the topics")
    return sorted(found.partitions)


def offsets(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the offset of a partition's first message, and the one after its last."""
    try:
        low, high = consumer.get_watermark_offsets(Partition(topic, partition), timeout=ANSWER_TIMEOUT_S)
    except KafkaException as error:
        raise LogUnavailableError(f"{topic}/{partition}: expected its offsets: {error}") from error
    return low, high


def behind(consumer: Consumer, positions: Positions) -> int:
    """Return how many messages lie between the positions and the ends that the broker last told of."""
    count = 0
    for name, at in positions.items():
        _, high = consumer.get_watermark_offsets(Partition(topic_of(name), number_of(name)), cached=True)
        count += max(0, high - at)
    return count
