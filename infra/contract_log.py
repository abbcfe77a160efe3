"""The contracts and rules that are in force, read from the log."""

from collections.abc import Iterator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition
from msgspec import Struct

from contracts import rules
from contracts.contract import Contract, decode
from contracts.errors import RetrySafeError
from contracts.rules import Rule
from contracts.topics import CONTRACTS, RULES
from lakehouse.registry import CONTRACT_PREFIX

ANSWER_TIMEOUT_S: Final = 10.0  # s; a broker that restarts is back in about five
SILENT_POLLS_MAX: Final = 100  # polls without a message, together as long as the answer timeout
POLL_MESSAGES_MAX: Final = 1_000


class Published(Struct, frozen=True):
    """A version on the log, and when it was published, in Unix milliseconds."""

    contract: Contract
    at_ms: int


def published(bootstrap: str, contract_id: str) -> tuple[Published, ...]:
    """Return the versions of a contract in the order of versions. Raises RetrySafeError, ContractError."""
    newest: dict[str, Published] = {}
    for key, value, at_ms in _messages(bootstrap, CONTRACTS):
        if value and key.startswith(f"{CONTRACT_PREFIX}{contract_id}/"):
            newest[key] = Published(decode(value), at_ms)
    return tuple(sorted(newest.values(), key=lambda found: found.contract.number))


def rules_in_force(bootstrap: str) -> tuple[Rule, ...]:
    """Return the rules that are in force, by id. Raises RetrySafeError, RuleError."""
    found: dict[str, Rule] = {}
    for key, value, _ in _messages(bootstrap, RULES):
        if value:
            found[key] = rules.decode(value)
        else:
            found.pop(key, None)
    return tuple(found[key] for key in sorted(found))


def _messages(bootstrap: str, topic: str) -> Iterator[tuple[str, bytes, int]]:
    """Yield key, value and time of a topic of one partition, up to where it ends now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "contract-reader", "enable.auto.commit": False})
    partition = TopicPartition(topic, 0, OFFSET_BEGINNING)
    try:
        start, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_TIMEOUT_S)
        consumer.assign([partition])
        silent_polls = 0
        while start < end:
            batch = consumer.consume(POLL_MESSAGES_MAX, ANSWER_TIMEOUT_S / SILENT_POLLS_MAX)
            silent_polls = 0 if batch else silent_polls + 1
            if silent_polls > SILENT_POLLS_MAX:
                raise RetrySafeError(f"topic {topic}: expected to read it to its end: see `fieldlake status`")
            yield from map(_parts, (message for message in batch if message.error() is None))
            # Compaction may have removed the last offsets, so the position decides and not the messages.
            start = max(start, consumer.position([partition])[0].offset)
    except KafkaException as error:
        raise RetrySafeError(f"log at {bootstrap}: {error}; is the stack up? see `fieldlake status`") from error
    finally:
        consumer.close()


def _parts(message: Message) -> tuple[str, bytes, int]:
    key, value = message.key(), message.value()
    return bytes(key or b"").decode("utf-8", "replace"), bytes(value or b""), message.timestamp()[1]
