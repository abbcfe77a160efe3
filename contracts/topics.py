"""Names of the topics that the parts share, on the log (Kafka) and on the broker (MQTT)."""

from typing import Final

from msgspec import Struct

from contracts.errors import OperatorMustActError

ORIGIN_CHARS_MAX: Final = 64  # characters; also the longest common name a device certificate may carry


class LogTopic(Struct, frozen=True):
    """A topic of the log. `compacted` topics keep the newest value of every key for ever."""

    name: str
    partitions: int
    compacted: bool
    key: str
    value: str


BATCHES: Final = "fieldlake.batches"
CONTRACTS: Final = "fieldlake.contracts"
RULES: Final = "fieldlake.rules"
WATERMARKS: Final = "fieldlake.watermarks"
CANDIDATES: Final = "fieldlake.candidates"
DECISIONS: Final = "fieldlake.decisions"
DEAD: Final = "fieldlake.dead"
CRM_CHANGES: Final = "fieldlake.crm.changes"
HANDOVERS: Final = "fieldlake.handovers"
SETTLEMENTS: Final = "fieldlake.settlements"

ORIGIN_HEADER: Final = "origin"  # Kafka header on `fieldlake.batches`; the key is the origin too

KAFKA_TOPICS: Final = (
    LogTopic(BATCHES, 4, False, "origin", "micro-batch"),
    LogTopic(CONTRACTS, 1, True, "contract/{id}/{version} or dictionary/{id}", "document"),
    LogTopic(RULES, 1, True, "rule id", "rule document"),
    LogTopic(WATERMARKS, 1, True, "origin/contract id", "watermark"),
    LogTopic(CANDIDATES, 4, False, "key shard", "candidate rows of one batch"),
    LogTopic(DECISIONS, 1, False, "subject", "decision"),
    LogTopic(CRM_CHANGES, 4, False, "system/tenant/object/record", "change of a CRM record"),
    LogTopic(DEAD, 1, False, "origin", "dead letter"),
    LogTopic(HANDOVERS, 8, False, "contract id", "files and claims of one round, for the table's committer"),
    LogTopic(SETTLEMENTS, 1, False, "worker", "what became of a handover"),
)


def is_origin(name: str) -> bool:
    """Say whether a name may be a device's or collector's: ASCII letters, digits, `-`, `_`, `.`."""
    return (
        0 < len(name) <= ORIGIN_CHARS_MAX
        and name.isascii()
        and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
    )


def up(shard: int, origin: str) -> str:
    """MQTT topic on which an origin publishes its batches."""
    return f"fl/v1/up/{shard}/{_checked(origin)}"


def up_filter(shard: int) -> str:
    """MQTT filter of the gateway that owns a shard."""
    return f"fl/v1/up/{shard}/+"


def ack(origin: str) -> str:
    """MQTT topic of the retained watermark document of an origin."""
    return f"fl/v1/down/{_checked(origin)}/ack"


def bundle(origin: str) -> str:
    """MQTT topic of the retained announcement of a newer bundle for an origin."""
    return f"fl/v1/down/{_checked(origin)}/bundle"


def pull(origin: str, pull_id: str) -> str:
    """MQTT topic of the retained request for events that an origin still has."""
    return f"fl/v1/down/{_checked(origin)}/pull/{_checked(pull_id)}"


def pull_filter(origin: str) -> str:
    """MQTT filter by which an origin hears of every pull."""
    return f"fl/v1/down/{_checked(origin)}/pull/+"


def pull_of(topic: str, origin: str) -> str | None:
    """Return the id named by a `pull` topic of an origin, None when the topic is not one."""
    before, _, pull_id = topic.rpartition("/")
    return pull_id if f"{before}/+" == pull_filter(origin) and is_origin(pull_id) else None


def state(origin: str) -> str:
    """MQTT topic of an origin's last will."""
    return f"fl/v1/state/{_checked(origin)}"


def enrol_request(origin: str) -> str:
    """MQTT topic on which a device that has only an invitation asks for its first certificate."""
    return f"fl/v1/enrol/{_checked(origin)}/request"


def enrol_answer(origin: str) -> str:
    """MQTT topic on which a device that has only an invitation is answered."""
    return f"fl/v1/enrol/{_checked(origin)}/answer"


def renew_request(origin: str) -> str:
    """MQTT topic on which a device asks for its next certificate."""
    return f"fl/v1/enrol/{_checked(origin)}/renew"


def certificate(origin: str) -> str:
    """MQTT topic of the answer to a device that asked for its next certificate."""
    return f"fl/v1/down/{_checked(origin)}/certificate"


def operator_request(operator: str, session: str) -> str:
    """MQTT topic on which an operator, by the name in the certificate, asks the enrolment service."""
    return f"fl/v1/operator/{_checked(operator)}/{_checked(session)}/request"


def operator_answer(operator: str, session: str) -> str:
    """MQTT topic on which the enrolment service answers an operator."""
    return f"fl/v1/operator/{_checked(operator)}/{_checked(session)}/answer"


def origin_of(topic: str) -> str | None:
    """Return the origin named by an `up` topic, None when the topic is not one."""
    parts = topic.split("/")
    if len(parts) != 5 or parts[:3] != ["fl", "v1", "up"] or not parts[3].isdecimal() or not is_origin(parts[4]):
        return None
    return parts[4]


def _checked(origin: str) -> str:
    if not is_origin(origin):
        raise OperatorMustActError(
            f"origin {origin!r}: expected 1 to {ORIGIN_CHARS_MAX} ASCII letters, digits, '-', '_' or '.'"
        )
    return origin
