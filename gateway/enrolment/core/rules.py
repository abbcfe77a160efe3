"""What may happen to a device, as a table, and what is said to those who ask for more."""

import hmac
from enum import Enum
from typing import Final

from contracts.enrolment import Refused
from gateway.enrolment.core.model import Device, State

Act = Enum("Act", "INVITE ENROL RENEW REVOKE")

# None: the device is not known. A revoked device comes back by an invitation only, never by itself.
NEXT: Final[dict[tuple[State | None, Act], State]] = {
    (None, Act.INVITE): State.INVITED,
    (State.INVITED, Act.INVITE): State.INVITED,  # the older token is void
    (State.INVITED, Act.ENROL): State.ACTIVE,
    (State.INVITED, Act.REVOKE): State.REVOKED,
    (State.ACTIVE, Act.INVITE): State.ACTIVE,  # a new disk or a new tablet under the old name; the old key still works
    (State.ACTIVE, Act.ENROL): State.ACTIVE,  # and from here on no longer
    (State.ACTIVE, Act.RENEW): State.ACTIVE,
    (State.ACTIVE, Act.REVOKE): State.REVOKED,
    (State.REVOKED, Act.INVITE): State.INVITED,
    (State.REVOKED, Act.REVOKE): State.REVOKED,
}

RESERVED_NAMES: Final = frozenset({"ca", "server", "gateway", "launcher", "enrolment", "operator"})
RESERVED_PREFIX: Final = "fieldlake-"  # client ids of our own services: the broker lets the newer of two equal ids in

NO_INVITATION: Final = Refused("no_invitation", "the device has no invitation that this token opens: ask for a new one")
EXPIRED: Final = Refused("invitation_expired", "the invitation has expired: ask for a new one")
TOKEN_SPENT: Final = Refused("token_spent", "another key has used this token: ask for a new invitation")
REVOKED: Final = Refused("revoked", "the device was taken out of service: ask for a new invitation")
NOT_ACTIVE: Final = Refused("not_active", "the registry knows no enrolled device of this name: enrol it")
TOO_MANY: Final = Refused("too_many_requests", "asked too often: wait a minute", retry=True)


def is_reserved(name: str) -> bool:
    """Say whether a name belongs to the services, so that no device may have it."""
    return name in RESERVED_NAMES or name.startswith(RESERVED_PREFIX)


def refuse_enrol(device: Device | None, token_sha256: str, key_sha256: str, now_ms: int) -> Refused | None:
    """Return why a device may not have a first certificate for this key; None when it may."""
    if device is None:
        return NO_INVITATION
    if (device.state, Act.ENROL) not in NEXT:
        return REVOKED
    invitation = device.invitation
    if invitation is None or not hmac.compare_digest(invitation.token_sha256, token_sha256):
        return NO_INVITATION
    if invitation.key_sha256 not in ("", key_sha256):
        return TOKEN_SPENT
    return EXPIRED if now_ms >= invitation.expires_at_ms else None


def refuse_renew(device: Device | None) -> Refused | None:
    """Return why a device may not have another certificate; None when it may."""
    if device is None:
        return NOT_ACTIVE
    if device.state is State.REVOKED:
        return REVOKED
    return None if (device.state, Act.RENEW) in NEXT else NOT_ACTIVE
