"""The broker's side of a revocation, for mosquitto: its revocation list, its SIGHUP, a session taken over.

mosquitto reads the list at its start and on SIGHUP, where it also makes its TLS context anew, so that no session ticket
of before opens it. A connection that stands is left alone by that. But a listener for devices takes the common name as
client id, and of two connections with one client id the newer wins: whoever connects under the device's name cuts it.
That connection takes several turns of the broker's loop, each of which would see the SIGHUP sent before it.
"""

import os
import signal
import time
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from gateway.config import MqttConfig
from gateway.enrolment.authority import PUBLIC_MODE, write_file
from gateway.enrolment.session import connect, make_client
from gateway.errors import BrokerAwayError

CUT_WITHIN_S: Final = 3.0  # s; takes 50 ms, and a revocation has five seconds
TURN_S: Final = 0.1
PROCESS_NAME: Final = "mosquitto"


class MosquittoDoor:
    """Implements `ports.Door`."""

    def __init__(self, mqtt: MqttConfig, list_file: Path, pid_file: Path) -> None:
        self._mqtt, self._list_file, self._pid_file = mqtt, list_file, pid_file

    def refuse(self, revocation_list_pem: bytes) -> None:
        write_file(self._list_file, revocation_list_pem, PUBLIC_MODE)
        try:
            pid = int(self._pid_file.read_text())
            # A number that was left behind may be anybody's by now, and SIGHUP ends most programs.
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name != PROCESS_NAME:
                raise BrokerAwayError(f"broker: {self._pid_file} names process {pid}, which is {name!r}: start it")
            os.kill(pid, signal.SIGHUP)
        except (OSError, ValueError) as error:
            raise BrokerAwayError(f"broker: {self._pid_file}: no such process ({error}): start it") from None

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
