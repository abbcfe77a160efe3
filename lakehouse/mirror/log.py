"""The changes topic behind the `ChangeLog` port."""

from collections.abc import Collection, Iterable
from typing import Final

from contracts.crm_change import CrmMessage, encode, link
from contracts.topics import CRM_CHANGES, DEAD
from lakehouse.kafka.log import KafkaLog
from lakehouse.kafka.publisher import KafkaPublisher
from lakehouse.mirror.ports import LogMessage, Positions
from lakehouse.positions import named, number_of

PRODUCED_AHEAD_MAX: Final = 10_000  # messages given to the client before its answers are taken in


class KafkaChanges:
    """A reader of all partitions, and a writer of dead letters."""

    def __init__(self, bootstrap: str) -> None:
        self._log = KafkaLog(bootstrap, "mirror")
        self._follower = self._log.follow(CRM_CHANGES)
        self._dead = self._log.publisher()

    def identity(self) -> str:
        """See the port."""
        return self._log.identities((CRM_CHANGES,))[CRM_CHANGES]

    def seek(self, positions: Positions) -> Positions:
        """See the port."""
        begins = self._follower.rewind({named(CRM_CHANGES, number): at for number, at in positions.items()})
        return {number_of(name): at for name, at in begins.items()}

    def poll(self, messages_max: int, timeout_s: float) -> list[LogMessage]:
        """See the port."""
        found = self._follower.fill(messages_max, timeout_s)
        return [LogMessage(message.partition, message.offset, message.value or b"") for message in found]

    def lag(self, positions: Positions) -> int:
        """See the port."""
        return self._follower.lag({named(CRM_CHANGES, number): at for number, at in positions.items()})

    def refuse(self, letters: Collection[bytes]) -> None:
        """See the port."""
        _publish(self._dead, DEAD, ((CRM_CHANGES.encode(), letter) for letter in letters))

    def close(self) -> None:
        """See the port."""
        self._follower.close()
        self._dead.close()


def publish_changes(bootstrap: str, messages: Iterable[CrmMessage]) -> None:
    """Write changes on the log as a connector does; returns once it holds them. Raises LogUnavailableError."""
    publisher = KafkaLog(bootstrap).publisher()
    _publish(publisher, CRM_CHANGES, ((link(message), encode(message)) for message in messages))
    publisher.close()


def _publish(publisher: KafkaPublisher, topic: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    for number, (key, value) in enumerate(pairs, start=1):
        publisher.publish(topic, key, value)
        if number % PRODUCED_AHEAD_MAX == 0:
            publisher.flush()
    publisher.flush()
