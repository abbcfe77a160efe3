"""A worker's share of a group's partitions."""

from collections.abc import Callable
from typing import Final

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Partition

from lakehouse.errors import ShareTakenError
from lakehouse.kafka.reading import behind, fill, offsets, poll
from lakehouse.ports import Message
from lakehouse.positions import Positions, named, number_of, topic_of

DEAL_WAIT_S: Final = 0.05  # seconds; how late a stop is noticed by one that has no share


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
            low, high = offsets(self._consumer, partition.topic, partition.partition)
            wanted = positions.get(name, low)
            at[name] = wanted if low <= wanted <= high else low
        places = [Partition(topic_of(name), number_of(name), offset) for name, offset in at.items()]
        self._consumer.assign(places)
        self._consumer.resume(places)
        return at

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        return self._read(lambda: poll(self._consumer, messages_max, timeout_s))

    def fill(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for all of them as long as the timeout."""
        return self._read(lambda: fill(self._consumer, messages_max, timeout_s))

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the broker last told of."""
        return behind(self._consumer, positions)

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
