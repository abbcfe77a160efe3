"""Whether the broker can be reached and lets the device in, asked as the agent would ask."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from contracts import topics
from edge_agent.adapters.mqtt import CONNECT_TIMEOUT_S, SESSION_EXPIRY_S
from edge_agent.config import MqttConfig
from edge_agent.errors import IdentityError

ANSWER_S: Final = 10.0  # s; of the broker, after the connection stands


class Answer(Struct, frozen=True):
    """What the broker said: `tls` is the version, `refusal` why it did not let the device in, empty when it did."""

    tls: str
    refusal: str = ""


def context_of(config: MqttConfig, cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Return what a connection shows and trusts. Raises IdentityError."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"{config.ca_file}, {cert_file}, {key_file}: {error}: enrol the device again") from None
    return context


def handshake(config: MqttConfig, context: ssl.SSLContext) -> str:
    """Return the version of TLS that both agree on. The broker may still refuse the certificate. Raises OSError."""
    with (
        socket.create_connection((config.host, config.port), CONNECT_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=config.host) as secured,
    ):
        return secured.version() or ""


def connect(config: MqttConfig, context: ssl.SSLContext, device: str) -> Answer:
    """Log in as the device, hear what the broker says, and leave; not while its agent is connected. Raises OSError.

    The device's session stays as it is: what waits in it is not acknowledged, and goes to the agent.
    """
    tls = handshake(config, context)
    said: list[str] = []
    done = threading.Event()
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=device, protocol=MQTTv5, reconnect_on_failure=False, manual_ack=True
    )

    def on_connect(_c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        if reason.is_failure:
            said.append(str(reason))
            done.set()
        else:
            client.subscribe(topics.ack(device), qos=1)

    def on_subscribe(_c: Client, _u: Any, _m: int, reasons: list[Any], _p: Any) -> None:
        said.append(str(reasons[0]) if reasons[0].is_failure else "")
        done.set()

    def on_disconnect(_c: Client, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        said.append(f"connection ended: {reason}")
        done.set()

    client.on_connect, client.on_subscribe, client.on_disconnect = on_connect, on_subscribe, on_disconnect
    client.tls_set_context(context)
    client.connect_timeout = CONNECT_TIMEOUT_S
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    client.connect(config.host, config.port, clean_start=False, properties=properties)
    client.loop_start()
    try:
        answered = done.wait(ANSWER_S)
    finally:
        client.disconnect()
        client.loop_stop()
    return Answer(tls, said[0] if answered else f"no answer within {ANSWER_S:.0f} s")
