"""A writer whose messages are written once, and known to be."""

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as KafkaMessage

from lakehouse.errors import LogUnavailableError
from lakehouse.kafka.reading import ANSWER_TIMEOUT_S, CLIENT_LOG_LEVEL, report

FLUSH_TIMEOUT_S: Final = 30.0  # seconds; longer than a broker's restart, so that one does not abort a round
PARTITION_BY_KEY: Final = -1  # the client's word for it


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
        "error_cb": report,
        "log_level": CLIENT_LOG_LEVEL,
    }
    return Producer(settings)
