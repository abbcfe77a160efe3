"""The preselector's loop around Kafka.

Protocol of a round, in this order:

1. follow    take what is new on `fieldlake.rules` and `fieldlake.contracts`
2. poll      up to BATCHES_PER_ROUND batches. Crash after: they are read again, their offsets are not stored
3. send      the candidate messages, acks=all. Crash after: some are sent twice, with the same event identities
4. store     the round's offsets, once all its messages are acknowledged; the client commits stored offsets

So a candidate is sent at least once, and the evaluator ignores events that it has seen.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from contracts import candidates, topics
from contracts.errors import RetrySafeError
from flink_jobs.triggers.errors import DeliveryError
from flink_jobs.triggers.preselect.documents import Documents
from flink_jobs.triggers.preselect.rounds import Round, Rounds
from flink_jobs.triggers.preselect.selection import Counts, select

log = logging.getLogger(__name__)

GROUP: Final = "fieldlake-preselect"
BATCHES_PER_ROUND: Final = 40  # batches; decoding one costs as much as deciding 40, more only adds delay
POLL_TIMEOUT_S: Final = 0.05  # also the longest that a new rule waits while no data flows
CONTROL_RECORDS_MAX: Final = 500  # records of the compacted topics per round, so that data is not kept waiting
CATCH_UP_TIMEOUT_S: Final = 60.0  # reading both compacted topics takes well under a second each
FLUSH_TIMEOUT_S: Final = 30.0  # as long as the producer itself goes on trying
LINGER_MS: Final = 2  # lets the messages of one round share a request
# A fetch is answered once so much has come, or so much later. Answered at once, 500 batches a second cost this process
# 8 to 11 % of a core, now 2. A shorter wait keeps the broker busy while nothing comes: 10 ms cost 7 % of a core there.
FETCH_BYTES_MIN: Final = 65_536
FETCH_WAIT_MS: Final = 25

Followed: Final = (topics.RULES, topics.CONTRACTS)


class Preselector:
    """Owns the consumers and the producer. One thread runs it; `stop` may be called by a signal handler."""

    def __init__(self, bootstrap: str, instance: str) -> None:
        self.documents = Documents()
        self.counts = Counts()
        self._rounds = Rounds()
        self._failure: KafkaError | None = None
        self._stopping = False
        self._control = Consumer(_control_settings(bootstrap))
        self._data = Consumer(_data_settings(bootstrap, instance))
        self._producer = Producer(_producer_settings(bootstrap))

    def stop(self) -> None:
        """Make `run` return after the round under way."""
        self._stopping = True

    def catch_up(self) -> None:
        """Read the compacted topics to their ends. Raises RetrySafeError when the log does not answer."""
        partitions = [TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in Followed]
        try:
            bounds = {p.topic: self._control.get_watermark_offsets(p, timeout=CATCH_UP_TIMEOUT_S) for p in partitions}
            self._control.assign(partitions)
        except KafkaException as error:
            raise RetrySafeError(f"preselector: the log does not answer for {', '.join(Followed)}: {error}") from error
        # An empty topic never gives the consumer a position.
        ends = {topic: end for topic, (first, end) in bounds.items() if first < end}
        while any(self._position(topic) < end for topic, end in ends.items()) and not self._stopping:
            self._follow(timeout_s=POLL_TIMEOUT_S)

    def run(self, on_round: Callable[[], None]) -> None:
        """Work until stopped; `on_round` is called after every round. Raises DeliveryError.

        On the way out everything sent is waited for and its offsets are committed.
        """
        self._data.subscribe([topics.BATCHES], on_revoke=self._revoked)
        try:
            while not self._stopping:
                self._follow(timeout_s=0.0)  # Step 1.
                if not self._rounds.full:
                    self._round(self._poll())  # Step 2.
                self._settle(wait_s=POLL_TIMEOUT_S if self._rounds.full else 0.0)
                on_round()
            self._producer.flush(FLUSH_TIMEOUT_S)
            self._settle(wait_s=0.0)
        finally:
            self._data.close()
            self._control.close()

    def _position(self, topic: str) -> int:
        return int(self._control.position([TopicPartition(topic, 0)])[0].offset)

    def _follow(self, timeout_s: float) -> None:
        for message in self._control.consume(CONTROL_RECORDS_MAX, timeout_s):
            if _usable(message):
                key = (message.key() or b"").decode(errors="replace")
                self.documents.take(str(message.topic()), key, message.value(), int(message.offset() or 0))

    def _poll(self) -> list[Message]:
        """Wait for one batch, then take those that lie ready: a fixed count would wait for the last of them."""
        first = self._data.poll(POLL_TIMEOUT_S)
        if first is None:
            return []
        return [m for m in (first, *self._data.consume(BATCHES_PER_ROUND - 1, 0.0)) if _usable(m)]

    def _round(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        started = self._rounds.begin({int(m.partition() or 0): int(m.offset() or 0) + 1 for m in messages})
        records = [((m.key() or b"").decode(errors="replace"), m.value() or b"") for m in messages]
        for message in select(records, self.documents, self.counts):
            self._send(message, started)  # Step 3.

    def _send(self, message: candidates.Candidates, started: Round) -> None:
        def acknowledged(error: KafkaError | None, _: Message) -> None:
            started.waiting -= 1
            self._failure = self._failure or error

        started.waiting += 1
        key, value = str(message.shard).encode(), candidates.encode(message)
        while True:
            try:
                self._producer.produce(topics.CANDIDATES, value, key, on_delivery=acknowledged)
                return
            except BufferError:
                self._producer.poll(POLL_TIMEOUT_S)

    def _settle(self, wait_s: float) -> None:
        self._producer.poll(wait_s)
        if self._failure is not None:
            raise DeliveryError(f"preselector: {topics.CANDIDATES} did not take a message: {self._failure}")
        if safe := self._rounds.finished():
            offsets = [TopicPartition(topics.BATCHES, partition, offset) for partition, offset in safe.items()]
            self._data.store_offsets(offsets=offsets)  # Step 4.

    def _revoked(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        """Give partitions away only with their offsets stored; what is not acknowledged then is read again."""
        self._producer.flush(FLUSH_TIMEOUT_S)
        self._settle(wait_s=0.0)
        self._rounds.forget()


def _usable(message: Message) -> bool:
    """Return False for an error event; those that the client cannot recover from by itself are raised."""
    error = message.error()
    if error is None:
        return True
    if error.fatal():
        raise KafkaException(error)
    log.warning("log: %s", error)
    return False


def _control_settings(bootstrap: str) -> dict[str, str | int | bool]:
    """The group is never joined nor committed to: partitions are assigned and read from their beginning."""
    return {"bootstrap.servers": bootstrap, "group.id": f"{GROUP}-documents", "enable.auto.commit": False}


def _data_settings(bootstrap: str, instance: str) -> dict[str, str | int | bool]:
    return {
        "bootstrap.servers": bootstrap,
        "group.id": GROUP,
        # A process that was killed is taken for its successor at once, and not waited for until its session ends.
        "group.instance.id": f"{GROUP}-{instance}",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 1_000,
        "enable.auto.offset.store": False,
        "fetch.min.bytes": FETCH_BYTES_MIN,
        "fetch.wait.max.ms": FETCH_WAIT_MS,
        "queued.max.messages.kbytes": 65_536,
    }


def _producer_settings(bootstrap: str) -> dict[str, str | int | bool]:
    return {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": LINGER_MS,
        "compression.type": "lz4",
        "delivery.timeout.ms": int(FLUSH_TIMEOUT_S * 1_000),
    }
