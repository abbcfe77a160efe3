"""The broker's side of a revocation, for mosquitto 2.0: lists that it finds by itself, and a session taken over.

Its TLS library reads a new list for the next connection. A connection that stands is left alone by that. But a listener
for devices takes the common name as client id, and of two connections with one client id the newer wins: whoever
connects under the device's name cuts it. No SIGHUP: with names from certificates it ruins sessions of clients who are
away. The broker must give out no session tickets (`NumTickets = 0`), for a ticket opens a connection unchecked.
"""

import datetime as dt
import time
from collections.abc import Sequence
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from contracts.ports import Clock
from gateway.config import MqttConfig
from gateway.enrolment.core.model import RevokedSerial
from gateway.enrolment.lists import RevocationLists
from gateway.enrolment.session import connect, make_client
from gateway.errors import BrokerAwayError

CUT_WITHIN_S: Final = 3.0  # s; takes 50 ms, and a revocation has five seconds
TURN_S: Final = 0.1


class MosquittoDoor:
    """Implements `ports.Door`."""

    def __init__(self, mqtt: MqttConfig, lists: RevocationLists, clock: Clock) -> None:
        self._mqtt, self._lists, self._clock = mqtt, lists, clock

    def refuse(self, revoked: Sequence[RevokedSerial]) -> None:
        self._lists.refuse(revoked, dt.datetime.fromtimestamp(self._clock.now_ms() / 1_000, dt.UTC))

    def cut(self, device: str) -> None:
        client = make_client(self._mqtt, device)
        accepted: list[bool] = []
        client.on_connect = lambda _client, _data, _flags, reason, _properties: accepted.append(not reason.is_failure)
        try:
            connect(client, self._mqtt)
            until_s = time.monotonic() + CUT_WITHIN_S
            while not accepted and time.monotonic() < until_s:
                if client.loop(TURN_S) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    break
        except OSError as error:
            raise BrokerAwayError(f"broker {self._mqtt.host}:{self._mqtt.port}: {error}: start it") from None
        finally:
            _leave(client)
        if accepted != [True]:
            raise BrokerAwayError(
                f"broker {self._mqtt.host}:{self._mqtt.port}: did not take a connection as {device}: look at its log"
            )


def _leave(client: Client) -> None:
    client.disconnect()
    client.loop(0)
