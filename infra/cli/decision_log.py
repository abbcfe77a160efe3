"""Read `fieldlake.decisions` from its beginning; repeats of a decision are passed over by their id."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from contracts.decisions import Decision, decode
from contracts.errors import RetrySafeError
from contracts.topics import DECISIONS

POLL_S: Final = 0.1
METADATA_TIMEOUT_S: Final = 10.0
IDS_KEPT_MAX: Final = 200_000  # ids; repeats follow within one checkpoint interval, this is hours of them


def read_decisions(bootstrap: str, follow: bool, stopped: Callable[[], bool] = lambda: False) -> Iterator[Decision]:
    """Yield decisions, oldest first; ends at the end of the log as it was at the start, unless it follows."""
    for decision, _ in read_timed(bootstrap, follow, stopped):
        yield decision


def read_timed(bootstrap: str, follow: bool, stopped: Callable[[], bool]) -> Iterator[tuple[Decision, float]]:
    """Like `read_decisions`, with the Unix time in ms at which each was received."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "decisions-reader", "enable.auto.commit": False})
    try:
        ends = _assign_all(consumer, bootstrap)
        seen: OrderedDict[str, None] = OrderedDict()
        while not stopped() and (follow or ends):
            message = consumer.poll(POLL_S)
            if message is None or message.error() is not None:
                continue
            received_ms = time.time() * 1_000
            _forget_reached(ends, message)
            decision = decode(message.value() or b"")
            if decision.id not in seen:
                seen[decision.id] = None
                if len(seen) > IDS_KEPT_MAX:
                    seen.popitem(last=False)
                yield decision, received_ms
    finally:
        consumer.close()


def _assign_all(consumer: Consumer, bootstrap: str) -> dict[int, int]:
    """Assign every partition from its beginning; return, per partition that holds something, its end offset."""
    try:
        partitions = consumer.list_topics(DECISIONS, timeout=METADATA_TIMEOUT_S).topics[DECISIONS].partitions
        ends: dict[int, int] = {}
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(DECISIONS, partition), timeout=METADATA_TIMEOUT_S)
            if high > low:
                ends[partition] = high
    except KafkaException as error:
        raise RetrySafeError(f"log at {bootstrap}: {error}; is the stack up? see `fieldlake status`") from error
    consumer.assign([TopicPartition(DECISIONS, partition, OFFSET_BEGINNING) for partition in partitions])
    return ends


def _forget_reached(ends: dict[int, int], message: Message) -> None:
    partition, offset = message.partition(), message.offset()
    if partition is not None and offset is not None and offset + 1 >= ends.get(partition, 0):
        ends.pop(partition, None)
