"""Announcements on the broker: one retained message per device, so that it learns of a newer bundle within seconds.

Per device and not per group: the broker lets a device read below its own name only, and a device that is moved to
another group need not be told to listen elsewhere.
"""

import logging
from collections import deque
from queue import SimpleQueue
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTv5
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
    """The connection to the broker. paho's thread keeps it; a connection that is lost is made again.

    All state belongs to the thread that calls `tell`. paho calls back with locks of its own held, so its callbacks only
    leave word in a queue: a lock of ours, held while we publish, would wait for theirs and theirs for ours.
    """

    def __init__(self, config: MqttConfig) -> None:
        self._word: SimpleQueue[int | None] = SimpleQueue()  # a message id that was answered; None: connected anew
        self._told: dict[str, int] = {}
        self._due: deque[str] = deque()
        self._aim: tuple[int, frozenset[str]] | None = None
        self._outstanding: set[int] = set()
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
        """How many devices were sent the newest announcement on this connection."""
        newest = max(self._told.values(), default=0)
        return sum(version == newest for version in self._told.values())

    def start(self) -> None:
        """Begin to connect."""
        self._client.loop_start()

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def tell(self, devices: frozenset[str], timestamp_version: int) -> bool:
        """Publish to devices that were not told of this version yet, as many as may be under way.

        Return whether all are told; until then it wants to be called again soon.
        """
        self._listen()
        if not self._connected:
            return True  # once it is, everything is said again
        if self._aim != (timestamp_version, devices):
            self._aim = (timestamp_version, devices)
            self._due = deque(sorted(d for d in devices if self._told.get(d, 0) < timestamp_version))
        data = releases.encode(Announcement(timestamp_version))
        while self._due and len(self._outstanding) < OUTSTANDING_MAX:
            device = self._due.popleft()
            self._outstanding.add(self._client.publish(topics.bundle(device), data, qos=1, retain=True).mid)
            self._told[device] = timestamp_version
        return not self._due

    def _listen(self) -> None:
        while not self._word.empty():
            answered = self._word.get()
            if answered is None:
                # The broker may have been wiped, so all is said again; what paho had queued it sends by itself.
                self._told.clear()
                self._aim = None
            else:
                self._outstanding.discard(answered)

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            _LOG.error("broker_refused reason=%r do=%r", str(reason), "check the gateway's certificate and the ACL")
            return
        self._word.put(None)
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
        self._word.put(mid)
        if reason.is_failure:
            _LOG.error(
                "announcement_refused reason=%r do=%r",
                str(reason),
                "allow the gateway to write fl/v1/down/# in the ACL",
            )
