"""A device that publishes any bytes, with a certificate of its own."""

import ssl
import threading
from types import TracebackType
from typing import Final, Self

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import topics
from infra.fleet.identity import ensure_identity
from infra.launcher.endpoints import Endpoints

WITHIN_S: Final = 30.0


class RawDevice:
    """Connects on entry; `publish` waits for the broker's PUBACK and returns its reason code."""

    def __init__(self, endpoints: Endpoints, name: str) -> None:
        identity = ensure_identity(endpoints, name)
        context = ssl.create_default_context(cafile=endpoints.mqtt.ca_file)
        context.load_cert_chain(identity.cert_file, identity.key_file)
        self.name = name
        self._address = (endpoints.mqtt.host, endpoints.mqtt.port)
        self._connected = threading.Event()
        self._acked: dict[int, int] = {}
        self._changed = threading.Condition()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self._client.tls_set_context(context)
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.on_publish = self._on_publish

    def __enter__(self) -> Self:
        self._client.connect(*self._address)
        self._client.loop_start()
        assert self._connected.wait(WITHIN_S), "no connection to the broker"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, payload: bytes, topic: str | None = None) -> int:
        """Publish to its own topic, or to any; return the MQTT 5 reason code."""
        sent = self._client.publish(topic or topics.up(0, self.name), payload, qos=1)
        with self._changed:
            assert self._changed.wait_for(lambda: sent.mid in self._acked, WITHIN_S), "no PUBACK"
            return self._acked[sent.mid]

    def _on_publish(
        self, _client: mqtt.Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._changed:
            self._acked[mid] = reason.value
            self._changed.notify_all()
