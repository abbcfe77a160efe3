"""Announcements on the broker: one retained message per device, so that it learns of a newer bundle within seconds.

Per device and not per group: the broker lets a device read below its own name only, and a device that is moved to
another group need not be told to listen elsewhere.
"""

import logging
import threading
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessageInfo, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import releases, topics
from contracts.releases import Announcement
from gateway.config import MqttConfig

CLIENT_ID: Final = "fieldlake-bundles"
KEEPALIVE_S: Final = 30
RECONNECT_MAX_S: Final = 5
OUTSTANDING_MAX: Final = 200  # messages that the broker has not confirmed; bounds what paho keeps in memory

_LOG: Final = logging.getLogger(__name__)


class Announcer:
    """The connection to the broker. paho's thread keeps it; a connection that is lost is made again."""

    def __init__(self, config: MqttConfig) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, int] = {}
        self._outstanding: dict[int, str] = {}
        self._connected = False
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=CLIENT_ID, protocol=MQTTv5)
        self._client.tls_set(ca_certs=config.ca_file, certfile=config.cert_file, keyfile=config.key_file)
        self._client.reconnect_delay_set(1, RECONNECT_MAX_S)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.connect_async(config.host, config.port, KEEPALIVE_S)

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._connected

    @property
    def told(self) -> int:
        """How many devices the broker holds the newest announcement for."""
        with self._lock:
            newest = max(self._told.values(), default=0)
            return sum(version == newest for version in self._told.values())

    def start(self) -> None:
        """Begin to connect."""
        self._client.loop_start()

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def tell(self, devices: frozenset[str], timestamp_version: int) -> None:
        """Publish to every device that was not told of this version yet, as many as may be under way."""
        data = releases.encode(Announcement(timestamp_version))
        with self._lock:
            waiting = set(self._outstanding.values())
            due = sorted(d for d in devices if self._told.get(d, 0) < timestamp_version and d not in waiting)
            for device in due[: max(0, OUTSTANDING_MAX - len(self._outstanding))] if self._connected else ():
                sent: MQTTMessageInfo = self._client.publish(topics.bundle(device), data, qos=1, retain=True)
                self._outstanding[sent.mid] = device
                self._told[device] = timestamp_version

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            _LOG.error("broker_refused reason=%r do=%r", str(reason), "check the gateway's certificate and the ACL")
            return
        with self._lock:
            # The broker may have been wiped, so all is said again; what paho had queued it sends by itself.
            self._told.clear()
            self._connected = True
        _LOG.info("broker_connected")

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        self._connected = False
        _LOG.warning(
            "broker_lost reason=%r do=%r", str(reason), "check the broker; devices look by themselves meanwhile"
        )

    def _on_publish(
        self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._lock:
            device = self._outstanding.pop(mid, None)
        if reason.is_failure:
            _LOG.error(
                "announcement_refused device=%s reason=%r do=%r", device, str(reason),
                "allow the gateway to write fl/v1/down/# in the ACL",
            )  # fmt: skip
