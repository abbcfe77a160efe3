"""Values of the enrolment service. Times are Unix time in milliseconds."""

from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """Where a device stands."""

    INVITED = "invited"
    ACTIVE = "active"
    REVOKED = "revoked"


class Cut(StrEnum):
    """What is to be done about a device's live connection: end it, or also keep it ended for a while."""

    ONCE = "once"
    HOLD = "hold"


class Certificate(Struct, frozen=True):
    """One certificate that was signed for a device's key. `serial` and `key_sha256` are hexadecimal."""

    serial: str
    key_sha256: str
    pem: str
    not_before_ms: int
    not_after_ms: int


class InvitationRecord(Struct, frozen=True):
    """The newest invitation of a device. `key_sha256` is empty until a key has used the token."""

    token_sha256: str
    expires_at_ms: int
    key_sha256: str


class Device(Struct, frozen=True):
    """What the registry knows of a device; `certificate` is its newest, whatever became of it."""

    name: str
    group: str
    state: State
    changed_at_ms: int
    invitation: InvitationRecord | None
    certificate: Certificate | None


class RevokedSerial(Struct, frozen=True):
    """A certificate that the broker must refuse."""

    serial: str
    revoked_at_ms: int


class AuditEntry(Struct, frozen=True):
    """Who did what to which device, and with which certificate."""

    at_ms: int
    device: str
    action: str
    actor: str
    serial: str
    detail: str
