"""What devices, operators and the enrolment service say to each other: JSON documents, keys and certificates in PEM.

A device's key never leaves the device: what travels is a certificate signing request (RFC 2986). Its answer is found by
the SHA-256 of the public key (SubjectPublicKeyInfo in DER form, RFC 5280), so a request that is repeated because its
answer was lost gets the same certificate. Who asks is never read from a document: it is the name in the topic, which
the broker binds to the certificate of the connection.
"""

import hashlib
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from contracts.errors import EnrolmentMessageError
from contracts.malformed import MALFORMED

MESSAGE_BYTES_MAX: Final = 16_384  # bytes; a request with a P-256 key has 600, an answer 1,200
INVITATION_BYTES_MAX: Final = 65_536  # bytes; an invitation carries an authority, a claim certificate and its key
TOKEN_BYTES: Final = 20  # 160 random bits: nobody guesses one, so a plain hash of it may be stored


class Invitation(Struct, frozen=True, forbid_unknown_fields=True):
    """All that a device needs to enrol: where, whom to trust, a claim certificate with its key, and the token.

    The claim certificate opens the bootstrap listener and nothing else; the token is good for one key. `port` is where
    the device connects once it is enrolled.
    """

    device: str
    group: str
    host: str
    port: int
    bootstrap_port: int
    ca_pem: str
    claim_certificate_pem: str
    claim_key_pem: str
    token: str
    expires_at_ms: int


class EnrolRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A device asks for its first certificate."""

    csr_pem: str
    token: str


class RenewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A device asks for its next certificate, over the connection that its present one opened."""

    csr_pem: str


class Granted(Struct, frozen=True, tag="granted"):
    """A certificate for the key whose hash is given."""

    key_sha256: str
    certificate_pem: str
    serial: str  # hexadecimal
    not_before_ms: int
    not_after_ms: int


class Refused(Struct, frozen=True, tag="refused"):
    """No. `reason` is a short stable code; with `retry` the same request may succeed later."""

    reason: str
    detail: str
    retry: bool = False
    key_sha256: str = ""


Answer: TypeAlias = Granted | Refused


class Invite(Struct, frozen=True, tag="invite", forbid_unknown_fields=True):
    """An operator invites a device. Token and claim key stay with the operator; their hash and request travel."""

    device: str
    group: str
    token_sha256: str
    csr_pem: str
    valid_s: int


class Revoke(Struct, frozen=True, tag="revoke", forbid_unknown_fields=True):
    """An operator takes a device out of service."""

    device: str
    reason: str = ""


class ListDevices(Struct, frozen=True, tag="list", forbid_unknown_fields=True):
    """An operator asks for the devices after a name, in the order of their names; one page of them is answered."""

    after: str = ""


OperatorRequest: TypeAlias = Invite | Revoke | ListDevices


class Invited(Struct, frozen=True, tag="invited"):
    """The device may enrol until then."""

    claim_certificate_pem: str
    expires_at_ms: int


class Revoked(Struct, frozen=True, tag="revoked"):
    """The device's certificates are refused and its connection is cut; `in_force_ms` is how long that took."""

    device: str
    certificates: int
    in_force_ms: int


class DeviceEntry(Struct, frozen=True):
    """What the registry says of a device. Times are Unix time in milliseconds; 0 where there is none."""

    device: str
    group: str
    state: str
    serial: str
    not_after_ms: int
    changed_at_ms: int


class Devices(Struct, frozen=True, tag="devices"):
    """A page of devices; with `more`, ask again after the last of them."""

    devices: tuple[DeviceEntry, ...]
    more: bool


OperatorAnswer: TypeAlias = Invited | Revoked | Devices | Refused

_decode_invitation: Final = msgspec.json.Decoder(Invitation).decode
_decode_enrol: Final = msgspec.json.Decoder(EnrolRequest).decode
_decode_renew: Final = msgspec.json.Decoder(RenewRequest).decode
_decode_answer: Final[Callable[[bytes], Answer]] = msgspec.json.Decoder(Answer).decode
_decode_operator_request: Final[Callable[[bytes], OperatorRequest]] = msgspec.json.Decoder(OperatorRequest).decode
_decode_operator_answer: Final[Callable[[bytes], OperatorAnswer]] = msgspec.json.Decoder(OperatorAnswer).decode


def token_sha256(token: str) -> str:
    """Return the form in which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def encode(
    message: Invitation | EnrolRequest | RenewRequest | Answer | OperatorRequest | OperatorAnswer,
) -> bytes:
    """Return the JSON form of a message."""
    return msgspec.json.encode(message)


def decode_invitation(data: bytes) -> Invitation:
    """Parse an invitation. Raises EnrolmentMessageError."""
    _check_size(data, INVITATION_BYTES_MAX, "an invitation")
    try:
        return _decode_invitation(data)
    except MALFORMED as error:
        raise _malformed("an invitation, as `fieldlake device invite` prints it", error) from None


def decode_enrol(data: bytes) -> EnrolRequest:
    """Parse a first request. Raises EnrolmentMessageError."""
    _check_size(data, MESSAGE_BYTES_MAX, "a request for a certificate")
    try:
        return _decode_enrol(data)
    except MALFORMED as error:
        raise _malformed("a request for a first certificate", error) from None


def decode_renew(data: bytes) -> RenewRequest:
    """Parse a request for the next certificate. Raises EnrolmentMessageError."""
    _check_size(data, MESSAGE_BYTES_MAX, "a request for a certificate")
    try:
        return _decode_renew(data)
    except MALFORMED as error:
        raise _malformed("a request for the next certificate", error) from None


def decode_answer(data: bytes) -> Answer:
    """Parse the answer to either request. Raises EnrolmentMessageError."""
    _check_size(data, MESSAGE_BYTES_MAX, "an answer")
    try:
        return _decode_answer(data)
    except MALFORMED as error:
        raise _malformed("an answer of the enrolment service", error) from None


def decode_operator_request(data: bytes) -> OperatorRequest:
    """Parse what an operator asks for. Raises EnrolmentMessageError."""
    _check_size(data, MESSAGE_BYTES_MAX, "an operator's request")
    try:
        return _decode_operator_request(data)
    except MALFORMED as error:
        raise _malformed("an operator's request", error) from None


def decode_operator_answer(data: bytes) -> OperatorAnswer:
    """Parse the answer to an operator, whatever its size: it comes from the service. Raises EnrolmentMessageError."""
    try:
        return _decode_operator_answer(data)
    except MALFORMED as error:
        raise _malformed("an answer to an operator", error) from None


def _check_size(data: bytes, most: int, what: str) -> None:
    if len(data) > most:
        raise EnrolmentMessageError(f"enrolment: expected {what} of at most {most} bytes, found {len(data)}")


def _malformed(what: str, error: Exception) -> EnrolmentMessageError:
    # Never the bytes themselves: they may hold a token.
    return EnrolmentMessageError(f"enrolment: expected {what}: {error}")
