"""The clients of one worker."""

from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from lakehouse.errors import LogUnavailableError
from lakehouse.kafka.follower import KafkaFollower
from lakehouse.kafka.publisher import KafkaPublisher, producer
from lakehouse.kafka.reading import ANSWER_TIMEOUT_S, CLIENT_LOG_LEVEL, report
from lakehouse.kafka.share import KafkaShare

READ_AHEAD_KIB: Final = 32_768  # KiB; two rounds of a backlog: what is fetched while one is written
READ_AHEAD_MESSAGES: Final = 16_384  # two rounds as well; small ones take the client more than their own bytes
# A broker answers a fetch with the first message there is: live that is hundreds of answers a second, a message each,
# and a round waits for all of them anyway. It is fed when so much has come, or after so long.
ROUND_FETCH_BYTES_MIN: Final = 262_144
ROUND_FETCH_WAIT_MS: Final = 25  # ms; a tenth of the time between two rounds
# Milliseconds after which a worker that says nothing loses its share; one that is restarted is back in about two.
SESSION_MS: Final = 10_000
HEARTBEAT_MS: Final = 1_000  # ms; a tenth of the session, so that a few may be late


class KafkaLog:
    """Makes the clients of one worker. `name` is the worker's: restarted under it, it gets its share back at once."""

    def __init__(self, bootstrap: str, name: str = "reader") -> None:
        self._name = name
        admin: dict[str, Any] = {"bootstrap.servers": bootstrap, "error_cb": report, "log_level": CLIENT_LOG_LEVEL}
        self._admin = AdminClient(admin)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "group.id": f"fieldlake-{name}",  # the client insists on one; nothing is committed to it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": READ_AHEAD_MESSAGES,
            "queued.max.messages.kbytes": READ_AHEAD_KIB,
            "fetch.wait.max.ms": 50,
            "fetch.error.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "error_cb": report,
            "log_level": CLIENT_LOG_LEVEL,
        }
        self._bootstrap = bootstrap

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Return each topic's id, which Kafka draws anew when a topic is created."""
        wanted = list(topics)
        try:
            futures = self._admin.describe_topics(TopicCollection(wanted), request_timeout=ANSWER_TIMEOUT_S)
            return {name: str(future.result().topic_id) for name, future in futures.items()}
        except KafkaException as error:
            raise LogUnavailableError(
                f"topics {', '.join(wanted)}: expected to find them: {error}: create the topics, start the broker"
            ) from error

    def follow(self, topic: str) -> KafkaFollower:
        """Return a reader of a whole topic."""
        return KafkaFollower(Consumer(self._settings), topic)

    def share(self, group: str, topics: Iterable[str], in_rounds: bool = False) -> KafkaShare:
        """Join a group; see the port."""
        settings = self._settings | {
            "group.id": group,
            "group.instance.id": f"{group}-{self._name}",
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            "partition.assignment.strategy": "roundrobin",
        }
        if in_rounds:
            settings |= {"fetch.min.bytes": ROUND_FETCH_BYTES_MIN, "fetch.wait.max.ms": ROUND_FETCH_WAIT_MS}
        return KafkaShare(lambda: Consumer(settings), tuple(topics))

    def publisher(self) -> KafkaPublisher:
        """Return a writer."""
        return KafkaPublisher(producer(self._bootstrap))
