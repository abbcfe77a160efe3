"""The lake's watermarks, read from the beginning of their compacted topic: no consumer group, no stored position."""

import logging
import queue
from collections.abc import Iterator
from threading import Event
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from contracts import topics, watermark
from contracts.errors import WatermarkError
from contracts.watermark import Watermark
from gateway.adapters.client_log import client_logger
from gateway.adapters.wake import Bell

QUEUE_MAX: Final = 10_000  # watermarks; a full queue pauses the reader
READ_MAX: Final = 1_000  # messages a call
POLL_S: Final = 0.2
RECHECK_S: Final = 1.0
METADATA_TIMEOUT_S: Final = 5.0

_LOG: Final = logging.getLogger(__name__)


class BadWatermark(Struct, frozen=True):
    """A message on the watermark topic that is no watermark."""

    source: str
    detail: str
    original: bytes


class WatermarkReader:
    """Follows the topic. `run` belongs to a thread of its own, `take` to the thread that publishes."""

    def __init__(self, bootstrap: str, bell: Bell) -> None:
        self._bootstrap, self._bell = bootstrap, bell
        self._queue: queue.Queue[Watermark | BadWatermark] = queue.Queue(QUEUE_MAX)
        self._behind: set[int] = set()
        self.caught_up = False

    def take(self) -> Iterator[Watermark | BadWatermark]:
        """Yield what has arrived."""
        while True:
            try:
                yield self._queue.get_nowait()
            except queue.Empty:
                return

    def run(self, stop: Event) -> None:
        """Read until told to stop."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "client.id": "fieldlake-gateway-watermarks",
                "group.id": "fieldlake-gateway",  # the client demands one; with `assign` no group is ever joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "reconnect.backoff.max.ms": 2_000,
            },
            logger=client_logger(__name__),
        )
        try:
            if self._assign(consumer, stop):
                while not stop.is_set():
                    self._read(consumer, stop)
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer, stop: Event) -> bool:
        while not stop.is_set():
            try:
                topic = consumer.list_topics(topics.WATERMARKS, timeout=METADATA_TIMEOUT_S).topics[topics.WATERMARKS]
                partitions = sorted(topic.partitions)
            except KafkaException as error:
                _LOG.info("watermarks_unavailable why=%r", error.args[0].str())
                partitions = []
            if partitions:
                self._behind = set(partitions)
                consumer.assign([TopicPartition(topics.WATERMARKS, p, OFFSET_BEGINNING) for p in partitions])
                return True
            stop.wait(RECHECK_S)
        return False

    def _read(self, consumer: Consumer, stop: Event) -> None:
        messages = consumer.consume(READ_MAX, POLL_S)
        for message in messages:
            error = message.error()
            if error is not None:
                self._note_error(error, message)
            elif (item := _parse(message)) is not None:
                self._put(item, stop)
        if messages:
            self._bell.ring()

    def _put(self, item: Watermark | BadWatermark, stop: Event) -> None:
        while not stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_S)
            except queue.Full:
                self._bell.ring()
            else:
                return

    def _note_error(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            self._behind.discard(message.partition() or 0)
            if not self._behind and not self.caught_up:
                self.caught_up = True
                _LOG.info("watermarks_caught_up")
            return
        _LOG.error(
            "watermarks_read_failed why=%r do=%r", error.str(), f"check topic {topics.WATERMARKS}; reading goes on"
        )


def _parse(message: Message) -> Watermark | BadWatermark | None:
    value = message.value()
    if value is None:  # a tombstone: the stream is gone from the topic, and its device learns nothing new
        return None
    try:
        return watermark.decode_watermark(value)
    except WatermarkError as error:
        source = f"{topics.WATERMARKS}[{message.partition()}]@{message.offset()}"
        return BadWatermark(source, str(error), value)
