"""Decisions: what a rule concluded about a subject, and why."""

import hashlib
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from contracts.errors import OperatorMustActError
from contracts.malformed import MALFORMED

BECAUSE_CHARS_MAX: Final = 4_000  # characters of an explanation, as the table of decisions has

# `act`: carry it out. `late`: its events are from longer ago than the rule acts upon; for the record only.
Standing: TypeAlias = Literal["act", "late"]


class EventId(Struct, frozen=True, array_like=True, order=True):
    """Identity of one event within its contract's stream; sorts by contract, origin, epoch, seq."""

    contract: str
    origin: str
    epoch: int
    seq: int


class Decision(Struct, frozen=True):
    """One decision; a repeat of the same match has the same `id`, so every sink can upsert by it.

    `event_time_us` is when the completing event happened, `sealed_at_ms` when its batch was sealed by the origin,
    `decided_at_ms` when the job emitted the decision. `standing` says whether to act on it. `priority` and `audience`
    are the rule's: what comes first, and who acts.
    """

    id: str
    tenant: str
    rule_id: str
    rule_version: int
    subject_kind: str
    subject: str
    intent: str
    action: str
    event_time_us: int
    sealed_at_ms: int
    decided_at_ms: int
    events: tuple[EventId, ...]
    because: str
    standing: Standing = "act"
    priority: int = 0
    audience: str = ""


def decision_id(tenant: str, rule_id: str, rule_version: int, subject: str, match: tuple[EventId, ...]) -> str:
    """Return 32 hex digits of SHA-256 over everything that makes the decision this one."""
    canonical = msgspec.json.encode([tenant, rule_id, rule_version, subject, match])
    return hashlib.sha256(canonical).hexdigest()[:32]


def encode(decision: Decision) -> bytes:
    """Return the JSON form."""
    return msgspec.json.encode(decision)


def decode(data: bytes) -> Decision:
    """Parse the JSON form. Raises OperatorMustActError."""
    try:
        return msgspec.json.decode(data, type=Decision)
    except MALFORMED as error:
        raise OperatorMustActError(f"decision: expected its JSON form, found {data[:80]!r}: {error}") from error
