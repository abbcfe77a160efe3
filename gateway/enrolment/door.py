"""The broker's side of a revocation, for mosquitto 2.0: lists that it finds by itself, and a session taken over.

Its TLS library reads a new list for the next connection. A connection that stands is left alone by that. But a listener
for devices takes the common name as client id, and of two connections with one client id the newer wins: whoever
connects under the device's name cuts it. Somebody who had shown his certificate before, and waits with his first word,
would still come in: so the session is held until the broker has dropped all who wait.

No SIGHUP: with names from certificates it ruins the sessions of clients who are away. And the broker must give out no
session tickets (`NumTickets = 0`), for a ticket opens a connection unchecked.
"""

import datetime as dt
import logging
from collections.abc import Sequence
from threading import Event
from typing import Final

from paho.mqtt.client import Client

from contracts.ports import Clock
from gateway.config import MqttConfig
from gateway.enrolment.core.model import RevokedSerial
from gateway.enrolment.lists import RevocationLists
from gateway.enrolment.session import connect, make_client
from gateway.errors import BrokerAwayError

CUT_WITHIN_S: Final = 3.0  # s; takes 50 ms, and a revocation has five seconds
HELD_MAX: Final = 200  # devices; a thread and a connection each. More at once are cut and not held

_LOG: Final = logging.getLogger(__name__)


class MosquittoDoor:
    """Implements `ports.Door`."""

    def __init__(self, mqtt: MqttConfig, lists: RevocationLists, clock: Clock) -> None:
        self._mqtt, self._lists, self._clock = mqtt, lists, clock
        self._held: dict[str, Client] = {}

    def refuse(self, revoked: Sequence[RevokedSerial]) -> None:
        try:
            self._lists.refuse(revoked, dt.datetime.fromtimestamp(self._clock.now_ms() / 1_000, dt.UTC))
        except OSError as error:
            raise BrokerAwayError(f"revocation list: {error}: free the disk") from None

    def cut(self, device: str) -> None:
        _leave(self._take_over(device))

    def hold(self, device: str) -> None:
        # The client connects again by itself a second after somebody took the session from it.
        client = self._take_over(device)
        if len(self._held) >= HELD_MAX:
            _LOG.warning("not_held device=%s why='%d devices are'", device, HELD_MAX)
            _leave(client)
            return
        self._held[device] = client

    def release(self, device: str) -> None:
        if (client := self._held.pop(device, None)) is not None:
            _leave(client)

    def close(self) -> None:
        """Release all."""
        for device in list(self._held):
            self.release(device)

    def _take_over(self, device: str) -> Client:
        address = f"{self._mqtt.host}:{self._mqtt.port}"
        client = make_client(self._mqtt, device)
        accepted = Event()
        client.on_connect = lambda _client, _data, _flags, reason, _properties: (
            None if reason.is_failure else accepted.set()
        )
        try:
            connect(client, self._mqtt)
        except OSError as error:
            raise BrokerAwayError(f"broker {address}: {error}: start it") from None
        client.loop_start()
        if not accepted.wait(CUT_WITHIN_S):
            _leave(client)
            raise BrokerAwayError(f"broker {address}: did not take a connection as {device}: look at its log")
        return client


def _leave(client: Client) -> None:
    client.disconnect()
    client.loop_stop()
