"""From an invitation to a certificate: once in a device's life, over the broker's bootstrap listener."""

import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from contracts import enrolment, topics
from contracts.enrolment import EnrolRequest, Invitation, Refused
from contracts.errors import EnrolmentMessageError
from edge_agent.adapters.identity import Generation, IdentityFolder, write_file
from edge_agent.enrolment.keys import Request, make_request
from edge_agent.errors import InvitationError, NotEnrolledError

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_WITHIN_S: Final = 15.0  # s; an answer takes milliseconds, a link in a basement seconds


def enrol(invitation: Invitation, identity: IdentityFolder) -> Generation:
    """Return the device's first certificate with its key, in use.

    After a crash or NotEnrolledError call it again: the key that may have used the token already is used again. Raises
    InvitationError when the service refuses, IdentityError for an answer that does not fit the key.
    """
    request = make_request(identity.unproved() or identity.begin(), invitation.device)
    document = _ask(invitation, request)
    answer = enrolment.decode_answer(document)
    if isinstance(answer, Refused):
        kind = NotEnrolledError if answer.retry else InvitationError
        raise kind(f"enrolment of {invitation.device}: refused: {answer.detail}")
    identity.store(document)
    return identity.promote()


def _ask(invitation: Invitation, request: Request) -> bytes:
    address = f"{invitation.host}:{invitation.bootstrap_port}"
    answers: list[bytes] = []
    answered = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id=invitation.device, protocol=MQTTv5)
    client.tls_set_context(_tls(invitation))
    client.connect_timeout = CONNECT_TIMEOUT_S

    def on_connect(_client: Client, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not reason.is_failure:
            client.subscribe(topics.enrol_answer(invitation.device), qos=1)

    def on_subscribe(*_: Any) -> None:
        message = EnrolRequest(request.csr_pem, invitation.token)
        client.publish(topics.enrol_request(invitation.device), enrolment.encode(message), qos=1)

    def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
        if _is_for(request, bytes(message.payload)):
            answers.append(bytes(message.payload))
            answered.set()

    client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
    try:
        client.connect(invitation.host, invitation.bootstrap_port)
    except OSError as error:
        raise NotEnrolledError(f"enrolment of {invitation.device}: {address}: {error}: try again") from None
    client.loop_start()
    try:
        if not answered.wait(ANSWER_WITHIN_S):
            raise NotEnrolledError(
                f"enrolment of {invitation.device}: {address}: no answer within {ANSWER_WITHIN_S:.0f} s; try again, "
                "or ask for a new invitation if this one is old"
            )
    finally:
        client.disconnect()
        client.loop_stop()
    return answers[0]


def _is_for(request: Request, document: bytes) -> bool:
    """Pass over answers to somebody else who holds the same invitation."""
    try:
        answer = enrolment.decode_answer(document)
    except EnrolmentMessageError:
        return False
    return answer.key_sha256 in ("", request.key_sha256)


def _tls(invitation: Invitation) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=invitation.ca_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # The module reads keys from files only.
        with tempfile.TemporaryDirectory(prefix="claim-") as folder:
            certificate, key = Path(folder) / "claim.pem", Path(folder) / "claim.key"
            write_file(certificate, invitation.claim_certificate_pem.encode())
            write_file(key, invitation.claim_key_pem.encode())
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvitationError(
            f"invitation of {invitation.device}: expected certificates in PEM form: {error}: ask for a new one"
        ) from None
    return context
