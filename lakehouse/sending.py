"""Micro-batches to the log by the lake's own processes and commands, in the name of an origin."""

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contracts.topics import BATCHES, ORIGIN_HEADER
from lakehouse.errors import LogUnavailableError
from lakehouse.kafka.publisher import FLUSH_TIMEOUT_S, producer

QUEUE_WAIT_S = 1.0  # seconds between two looks whether a full queue has room again


class Sender:
    """Sends batches as the gateway does: keyed by the origin, which a header names."""

    def __init__(self, bootstrap: str) -> None:
        self._producer: Producer = producer(bootstrap)

    def send(self, batches: Iterable[tuple[str, bytes]]) -> int:
        """Send (origin, batch) pairs; return how many the log holds now.

        Raises LogUnavailableError; some batches may be on the log then, which those who number them can repeat.
        """
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                refused.append(error)

        count = 0
        try:
            for origin, batch in batches:
                self._produce(origin, batch, delivered)
                count += 1
            waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        except KafkaException as error:
            raise LogUnavailableError(f"topic {BATCHES}: expected to take a batch: {error}") from error
        if waiting or refused:
            raise LogUnavailableError(
                f"topic {BATCHES}: expected to take {count} batches, {waiting} are open, refused {refused[:3]}: "
                "check that the broker runs and has disk"
            )
        return count

    def _produce(self, origin: str, batch: bytes, delivered: object) -> None:
        headers = [(ORIGIN_HEADER, origin.encode())]
        try:
            self._producer.produce(BATCHES, batch, origin, headers=headers, on_delivery=delivered)  # type: ignore[arg-type]
        except BufferError:
            self._producer.poll(QUEUE_WAIT_S)
            self._producer.produce(BATCHES, batch, origin, headers=headers, on_delivery=delivered)  # type: ignore[arg-type]
        self._producer.poll(0)
