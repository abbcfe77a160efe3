"""What an operator's program calls: invite, revoke and list devices. Token and claim key are drawn and stay here."""

import base64
import secrets
import threading
from collections.abc import Iterator
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct
from paho.mqtt.client import MQTTMessage

from contracts import enrolment, topics
from contracts.enrolment import (
    DeviceEntry,
    Devices,
    Invitation,
    Invite,
    Invited,
    ListDevices,
    OperatorAnswer,
    OperatorRequest,
    Refused,
    Revoke,
    Revoked,
)
from gateway.config import MqttConfig
from gateway.enrolment.session import ANSWER_WITHIN_S, Session
from gateway.errors import NoAnswerError, OperatorRefusedError

INVITATION_VALID_S: Final = 86_400  # s; somebody is on the way to the device
SESSION_BYTES: Final = 8


class DeviceListeners(Struct, frozen=True):
    """Where devices find the broker, and its authority: what an invitation tells them."""

    host: str
    port: int
    bootstrap_port: int
    ca_pem: str


class Operator(Session):
    """A connection to the enrolment service, for one thread.

    Every request raises NoAnswerError when no answer came in time, and OperatorRefusedError when it was refused.
    """

    def __init__(self, mqtt: MqttConfig, name: str) -> None:
        session = f"op-{secrets.token_hex(SESSION_BYTES)}"
        super().__init__(mqtt, session, topics.operator_answer(name, session))
        self._request_topic = topics.operator_request(name, session)
        self._arrived = threading.Event()
        self._answer = b""

    def invite(
        self, device: str, group: str, listeners: DeviceListeners, valid_s: int = INVITATION_VALID_S
    ) -> Invitation:
        """Invite a device; an older invitation of it is void."""
        key = ec.generate_private_key(ec.SECP256R1())
        token = base64.b32encode(secrets.token_bytes(enrolment.TOKEN_BYTES)).decode()
        answer = self._ask(Invite(device, group, enrolment.token_sha256(token), _request(key), valid_s))
        if not isinstance(answer, Invited):
            raise _unexpected(answer)
        return Invitation(
            device=device,
            group=group,
            host=listeners.host,
            port=listeners.port,
            bootstrap_port=listeners.bootstrap_port,
            ca_pem=listeners.ca_pem,
            claim_certificate_pem=answer.claim_certificate_pem,
            claim_key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
            token=token,
            expires_at_ms=answer.expires_at_ms,
        )

    def revoke(self, device: str, reason: str = "") -> Revoked:
        """Take a device out of service; when this returns, its connection is cut and cannot come back."""
        answer = self._ask(Revoke(device, reason))
        if not isinstance(answer, Revoked):
            raise _unexpected(answer)
        return answer

    def device(self, name: str) -> DeviceEntry | None:
        """Return a device of the registry, None when it has none of that name."""
        found = next((entry for entry in self.devices(after=name[:-1]) if entry.device >= name), None)
        return found if found is not None and found.device == name else None

    def devices(self, after: str = "") -> Iterator[DeviceEntry]:
        """Yield every device of the registry whose name comes after one, in the order of their names."""
        while True:
            answer = self._ask(ListDevices(after))
            if not isinstance(answer, Devices):
                raise _unexpected(answer)
            yield from answer.devices
            if not answer.more:
                return
            after = answer.devices[-1].device

    def _ask(self, request: OperatorRequest) -> OperatorAnswer:
        self._arrived.clear()
        self._client.publish(self._request_topic, enrolment.encode(request), qos=1)
        if not self._arrived.wait(ANSWER_WITHIN_S):
            raise NoAnswerError(
                f"enrolment service: no answer within {ANSWER_WITHIN_S:.0f} s; is it up? see `fieldlake status`, "
                "then `fieldlake device list` for what has come of it"
            )
        answer = enrolment.decode_operator_answer(self._answer)
        if isinstance(answer, Refused):
            raise OperatorRefusedError(f"enrolment service: {answer.detail}")
        return answer

    def _heard(self, message: MQTTMessage) -> None:
        self._answer = bytes(message.payload)
        self._arrived.set()


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    # The authority puts in the name itself.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "claim")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _unexpected(answer: OperatorAnswer) -> OperatorRefusedError:
    return OperatorRefusedError(
        f"enrolment service: answered another question ({type(answer).__name__}): is it of this version?"
    )
