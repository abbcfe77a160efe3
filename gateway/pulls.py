"""Asking devices for events that they still have: retained requests at the broker, one topic per pull.

Retained, and not only sent: a device that is away, or whose process starts anew, hears of it when it comes; the broker
forgets a request when it expires, or when it is taken back.
"""

import threading
from typing import Any

import msgspec
from msgspec import Struct
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import pulls, topics
from contracts.malformed import MALFORMED
from contracts.pulls import PullRequest
from gateway.config import MqttConfig
from gateway.enrolment.session import ANSWER_WITHIN_S, Session
from gateway.errors import BrokerAwayError, OperatorRefusedError


class _State(Struct, frozen=True):
    online: bool


class PullDesk(Session):
    """An operator's connection for pulls of one device, for one thread. `session` is a name that nobody else has."""

    def __init__(self, mqtt: MqttConfig, session: str, device: str) -> None:
        super().__init__(mqtt, session, topics.state(device))
        self._device = device
        self._published = threading.Condition()
        self._reasons: dict[int, ReasonCode] = {}
        self.is_online: bool | None = None  # None: the device has never said so
        self._client.on_publish = self._on_publish

    def ask(self, request: PullRequest, now_ms: int) -> None:
        """Publish a request, for as long as it is valid. Raises PullError, BrokerAwayError, OperatorRefusedError."""
        left_s = max(1, (request.expires_at_ms - now_ms) // 1_000)
        self._publish(request.id, pulls.encode(request), left_s)

    def withdraw(self, pull_id: str) -> None:
        """Take a request back; the device stops, or forgets the answered one. Raises as `ask`."""
        self._publish(pull_id, b"", None)

    def _publish(self, pull_id: str, document: bytes, expires_in_s: int | None) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if expires_in_s is not None:
            properties.MessageExpiryInterval = expires_in_s
        topic = topics.pull(self._device, pull_id)
        message = self._client.publish(topic, document, qos=1, retain=True, properties=properties).mid
        with self._published:
            answered = self._published.wait_for(lambda: message in self._reasons, ANSWER_WITHIN_S)
        if not answered:
            raise BrokerAwayError(f"pull {pull_id}: the broker did not take it within {ANSWER_WITHIN_S:.0f} s")
        if (reason := self._reasons.pop(message)).is_failure:
            raise OperatorRefusedError(f"pull {pull_id} of {self._device}: the broker refused it: {reason}")

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        with self._published:
            self._reasons[mid] = reason
            self._published.notify_all()

    def _heard(self, message: MQTTMessage) -> None:
        try:
            self.is_online = msgspec.json.decode(message.payload, type=_State).online
        except MALFORMED:
            return  # The device's own affair; nothing here depends on it.
