"""The Kafka side: an idempotent producer whose delivery reports come back over a queue."""

import logging
from collections import deque
from collections.abc import Iterator
from functools import partial
from threading import Event
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from msgspec import Struct

from contracts import topics
from gateway.adapters.client_log import client_logger
from gateway.adapters.wake import Bell
from gateway.core.receipts import InFlight
from gateway.errors import LogFatalError

LINGER_MS: Final = 3  # gathers a few messages per request without being felt in the 150 ms to the lake
MESSAGE_BYTES_MAX: Final = 4_194_304  # as on the Kafka broker
QUEUE_KBYTES: Final = 262_144  # above what may be in flight, so that the gateway's own limits act first
QUEUE_MESSAGES: Final = 8_192
POLL_S: Final = 0.2  # seconds; delivery reports end the wait at once, this bounds how late a stop is seen
RECHECK_S: Final = 1.0
METADATA_TIMEOUT_S: Final = 1.0  # delivery reports wait as long, but while Kafka is away there are none
ATTEMPTS_PER_LINE: Final = 15  # an attempt takes up to two seconds: one log line in half a minute

_LOG: Final = logging.getLogger(__name__)


class Delivery(Struct, frozen=True):
    """The report of one message; `error` is None when all replicas hold it."""

    token: int
    error: str | None


class Log:
    """Hands records to Kafka. `deliveries` belongs to the thread that calls `produce`, `run` to another one."""

    def __init__(self, bootstrap: str, bell: Bell) -> None:
        self._bootstrap, self._bell = bootstrap, bell
        self._deliveries: deque[Delivery] = deque()
        self._fatal: str | None = None
        self._why = ""
        self.available = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "fieldlake-gateway",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": LINGER_MS,
                # Never given up: what is not delivered is not acknowledged, and the broker's queue grows instead.
                "message.timeout.ms": 0,
                "message.max.bytes": MESSAGE_BYTES_MAX,
                "queue.buffering.max.messages": QUEUE_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_KBYTES,
                "reconnect.backoff.max.ms": 2_000,
                "partitioner": "murmur2_random",  # the same partition for a key as every Java client gives it
                "error_cb": self._on_error,
            },
            logger=client_logger(__name__),
        )

    def produce(self, entry: InFlight) -> bool:
        """Hand over one message; False when the producer's queue is full and it was not taken."""
        record = entry.record
        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=partial(self._on_delivery, entry.token),
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._deliveries.append(Delivery(entry.token, str(error)))
            self._bell.ring()
        return True

    def deliveries(self) -> Iterator[Delivery]:
        """Yield the reports that have arrived. Raises LogFatalError when the producer gave up for good."""
        if self._fatal is not None:
            raise LogFatalError(
                f"Kafka at {self._bootstrap}: the producer cannot go on: {self._fatal}: start the gateway again; "
                "what was not delivered is sent again by the broker"
            )
        while self._deliveries:
            yield self._deliveries.popleft()

    def run(self, stop: Event) -> None:
        """Serve the producer until told to stop; whenever Kafka is away, ask until it answers and has our topics."""
        attempts = 0
        while not stop.is_set():
            if self.available:
                attempts = 0
            elif problem := self._problem():
                if attempts % ATTEMPTS_PER_LINE == 0:
                    _LOG.warning("kafka_not_ready bootstrap=%s why=%r", self._bootstrap, problem)
                attempts += 1
            else:
                self._set_available(True)
            self._producer.poll(POLL_S if self.available else RECHECK_S)

    def flush(self, timeout_s: float) -> int:
        """Wait for outstanding deliveries; return how many are still missing."""
        return self._producer.flush(timeout_s)

    def _problem(self) -> str | None:
        """Say what is wrong with Kafka and what to do, None when nothing is."""
        try:
            known = self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        except KafkaException as error:
            return f"{error.args[0].str()}: start Kafka"
        missing = sorted({topics.BATCHES, topics.DEAD, topics.WATERMARKS} - known.keys())
        return f"topics {', '.join(missing)} are missing: create them as contracts.topics says" if missing else None

    def _on_delivery(self, token: int, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._set_available(True)
        self._deliveries.append(Delivery(token, None if error is None else f"{error.name()}: {error.str()}"))
        self._bell.ring()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = f"{error.name()}: {error.str()}"
            self._bell.ring()
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._set_available(False)
        else:
            self._why = error.str()

    def _set_available(self, available: bool) -> None:
        if available == self.available:
            return
        self.available = available
        if available:
            _LOG.info("kafka_available bootstrap=%s", self._bootstrap)
        else:
            _LOG.warning(
                "kafka_unavailable bootstrap=%s why=%r do=%r", self._bootstrap, self._why or "no broker answers",
                "start Kafka; nothing is acknowledged to devices until it answers, and nothing is lost",
            )  # fmt: skip
        self._bell.ring()
