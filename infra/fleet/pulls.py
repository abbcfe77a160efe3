"""Asking devices of the local stack for events that they still have."""

import secrets
from typing import Final

from gateway.config import MqttConfig
from gateway.pulls import PullDesk
from infra.launcher.endpoints import Endpoints

SESSION_BYTES: Final = 8


def desk(endpoints: Endpoints, device: str) -> PullDesk:
    """Return an operator's connection for pulls of a device, to be entered."""
    mqtt = endpoints.mqtt
    files = mqtt.operator
    return PullDesk(
        MqttConfig(mqtt.host, mqtt.services_port, files.ca_file, files.cert_file, files.key_file),
        f"pull-{secrets.token_hex(SESSION_BYTES)}",
        device,
    )
