"""A connection to the broker's listener for services, as the enrolment service and its operators use it."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Final, Self

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gateway.config import MqttConfig
from gateway.errors import BrokerAwayError

KEEPALIVE_S: Final = 15
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_WITHIN_S: Final = 10.0  # s; an answer takes milliseconds, a revocation up to its five seconds
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


class Session(ABC):
    """An operator's connection that hears one topic, for one thread. `name` is one that nobody else has."""

    def __init__(self, mqtt: MqttConfig, name: str, topic: str) -> None:
        self._mqtt = mqtt
        self._topic = topic
        self._ready = threading.Event()
        self._client = make_client(mqtt, name)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._heard(message)

    def __enter__(self) -> Self:
        """Connect. Raises BrokerAwayError."""
        address = f"{self._mqtt.host}:{self._mqtt.port}"
        try:
            connect(self._client, self._mqtt)
        except OSError as error:
            raise BrokerAwayError(f"broker {address}: {error}; is the stack up? see `fieldlake status`") from None
        self._client.loop_start()
        if not self._ready.wait(ANSWER_WITHIN_S):
            self._client.loop_stop()
            raise BrokerAwayError(f"broker {address}: took no subscription within {ANSWER_WITHIN_S:.0f} s; see its log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @abstractmethod
    def _heard(self, message: MQTTMessage) -> None:
        """Take a message of the topic, in the connection's own thread."""

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not reason.is_failure:
            self._client.subscribe(self._topic, qos=1)
