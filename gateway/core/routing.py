"""Where one MQTT message goes on the log: to the batches, or to the dead letters with a reason."""

from typing import Final

from msgspec import Struct

from contracts import dead, microbatch, topics
from contracts.dead import DeadLetter
from contracts.errors import BatchError
from contracts.microbatch import Flag

REASON_UNKNOWN_TOPIC: Final = "unknown_topic"
REASON_BAD_WATERMARK: Final = "bad_watermark"
REASON_REPLAYED: Final = "forged_replay"


class Record(Struct, frozen=True):
    """One message for the log. `refused` is the reason code of a dead letter, None for a batch that is forwarded."""

    topic: str
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    refused: str | None = None
    detail: str = ""


def route(topic: str, payload: bytes, now_ms: int) -> Record:
    """Return the log record of a message that arrived on an MQTT topic.

    The origin is the name in the topic, which the broker has checked against the sender's certificate.
    """
    origin = topics.origin_of(topic)
    if origin is None:
        detail = (
            f"MQTT topic {topic!r}: expected fl/v1/up/{{shard}}/{{origin}}: let the device publish under its own name"
        )
        return refuse(f"mqtt {topic}", None, REASON_UNKNOWN_TOPIC, detail, payload, now_ms)
    try:
        header, _ = microbatch.parse(payload)
    except BatchError as error:
        return refuse(f"mqtt {topic}", origin, error.reason, str(error), payload, now_ms)
    if header.flags & Flag.REPLAYED:
        detail = f"{origin}: a batch marked as put back from the quarantine, which an origin cannot do: clear the flag"
        return refuse(f"mqtt {topic}", origin, REASON_REPLAYED, detail, payload, now_ms)
    key = origin.encode()
    return Record(topics.BATCHES, key, payload, ((topics.ORIGIN_HEADER, key),))


def refuse(source: str, origin: str | None, reason: str, detail: str, original: bytes, now_ms: int) -> Record:
    """Return the dead letter of something that cannot go on."""
    letter = DeadLetter(source, origin, reason, detail, now_ms, original)
    key = None if origin is None else origin.encode()
    return Record(topics.DEAD, key, dead.encode(letter), refused=reason, detail=detail)
