"""A reader of a whole topic."""

from typing import Final

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Partition

from lakehouse.errors import LogUnavailableError
from lakehouse.kafka.reading import ANSWER_TIMEOUT_S, behind, fill, offsets, partitions_of, poll
from lakehouse.ports import Message
from lakehouse.positions import Positions, named, number_of

SILENT_POLLS_MAX: Final = 100  # polls without a message, together as long as the answer timeout
POLL_MESSAGES_MAX: Final = 1_000  # messages of one read when a topic is read whole


class KafkaFollower:
    """Reads a whole topic."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._at: Positions = {}

    def rewind(self, positions: Positions | None = None) -> Positions:
        """Read on from these positions, or from the present end; see the port."""
        at: Positions = {}
        for partition in partitions_of(self._consumer, self._topic):
            low, high = offsets(self._consumer, self._topic, partition)
            wanted = high if positions is None else positions.get(named(self._topic, partition), low)
            at[named(self._topic, partition)] = wanted if low <= wanted <= high else low
        self._consumer.assign([Partition(self._topic, number_of(name), offset) for name, offset in at.items()])
        self._at = dict(at)
        return at

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        return self._passed(poll(self._consumer, messages_max, timeout_s))

    def fill(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for all of them as long as the timeout."""
        return self._passed(fill(self._consumer, messages_max, timeout_s))

    def catch_up(self) -> list[Message]:
        """Return everything up to the present end."""
        short = {
            name: end
            for name in self._at
            if (end := offsets(self._consumer, self._topic, number_of(name))[1]) > self._at[name]
        }
        found: list[Message] = []
        silent_polls = 0
        while short:
            read = self.poll(POLL_MESSAGES_MAX, ANSWER_TIMEOUT_S / SILENT_POLLS_MAX)
            found.extend(read)
            silent_polls = 0 if read else silent_polls + 1
            if silent_polls > SILENT_POLLS_MAX:
                raise LogUnavailableError(f"topic {self._topic}: expected to read it to its end: start the broker")
            # Compaction may have removed the last offsets, so the client's position decides and not the messages.
            for place in self._consumer.position([Partition(self._topic, number_of(name)) for name in short]):
                name = named(place.topic, place.partition)
                self._at[name] = max(self._at[name], place.offset)
            short = {name: end for name, end in short.items() if self._at[name] < end}
        return found

    def ends(self) -> Positions:
        """Return the position after the last message of every partition."""
        return {
            named(self._topic, partition): offsets(self._consumer, self._topic, partition)[1]
            for partition in partitions_of(self._consumer, self._topic)
        }

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the broker last told of."""
        return behind(self._consumer, positions)

    def close(self) -> None:
        """Release connections."""
        self._consumer.close()

    def _passed(self, found: list[Message]) -> list[Message]:
        for message in found:
            self._at[named(message.topic, message.partition)] = message.offset + 1
        return found
