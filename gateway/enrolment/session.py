"""A connection to the broker's listener for services, as the enrolment service and its operators use it."""

from typing import Any, Final

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.config import MqttConfig

KEEPALIVE_S: Final = 15
CONNECT_TIMEOUT_S: Final = 5.0
RECONNECT_FIRST_S: Final = 1
RECONNECT_MAX_S: Final = 5  # a broker that comes back is found within five seconds


def make_client(config: MqttConfig, client_id: str) -> Client:
    """Return a client that is not connected yet. Raises OSError for unreadable certificates."""
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5)
    client.tls_set(ca_certs=config.ca_file, certfile=config.cert_file, keyfile=config.key_file)
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.reconnect_delay_set(RECONNECT_FIRST_S, RECONNECT_MAX_S)
    return client


def connect(client: Client, config: MqttConfig) -> None:
    """Connect without a session: whoever missed an answer asks again. Raises OSError."""
    client.connect(config.host, config.port, KEEPALIVE_S, clean_start=True, properties=no_session())


def connect_later(client: Client, config: MqttConfig) -> None:
    """Like `connect`, in the client's own thread and until it succeeds."""
    client.connect_async(config.host, config.port, KEEPALIVE_S, clean_start=True, properties=no_session())


def no_session() -> Any:
    """Return what ends the session with the connection."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    return properties
