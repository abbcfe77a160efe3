"""Put a rule document on the log, where preselector and job take it up without a restart."""

from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from contracts import rules, topics
from contracts.rules import Rule
from flink_jobs.triggers.errors import PublishError

ACK_TIMEOUT_S: Final = 10.0  # an acknowledgement takes milliseconds; ten seconds without one is an outage


def apply(rule: Rule, producer: Producer) -> int:
    """Publish a rule under its id and return its offset, which names the rule set with it. Raises PublishError."""
    rules.check(rule)
    return _send(rule.id, rules.encode(rule), producer)


def delete(rule_id: str, producer: Producer) -> int:
    """Delete a rule by an empty value and return the record's offset. Raises PublishError."""
    return _send(rule_id, None, producer)


def _send(rule_id: str, document: bytes | None, producer: Producer) -> int:
    offsets: list[int] = []
    failures: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)
        else:
            offsets.append(int(message.offset() or 0))

    producer.produce(topics.RULES, document, rule_id.encode(), on_delivery=acknowledged)
    producer.flush(ACK_TIMEOUT_S)
    if not offsets:
        reason = str(failures[0]) if failures else f"no acknowledgement within {ACK_TIMEOUT_S:g} s"
        raise PublishError(
            f"rule {rule_id!r} on {topics.RULES}: {reason}: check the log with `fieldlake status`, repeat"
        )
    return offsets[0]
