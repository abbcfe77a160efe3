"""Certificates for the devices of this machine: invited and enrolled as any other device is."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from contracts.enrolment import Invitation
from edge_agent.adapters.identity import Generation, IdentityFolder
from edge_agent.core.updates.renewal import renew_at_ms
from edge_agent.enrolment.bootstrap import enrol
from gateway.config import MqttConfig
from gateway.enrolment.operator import INVITATION_VALID_S, DeviceListeners, Operator
from infra.launcher.certificates import OPERATOR_NAME
from infra.launcher.endpoints import Endpoints

LOCAL_GROUP: Final = "local"
SIDE_BY_SIDE_MAX: Final = 4  # devices; each mostly waits for the broker and for its disk


def identity_folder(endpoints: Endpoints, device: str) -> Path:
    """Return where the keys and certificates of a device of this machine lie."""
    return Path(endpoints.state_dir) / "devices" / device / "identity"


def ensure_identities(endpoints: Endpoints, devices: Iterable[str]) -> dict[str, Generation]:
    """Return key and certificate by device; a device that has none, or an old one, is invited and enrolled.

    Raises OperatorRefusedError for a name that no device may have, BrokerAwayError without a stack, and what
    `edge_agent.enrolment.bootstrap.enrol` raises.
    """
    found = {device: _usable(endpoints, device) for device in devices}
    missing = [device for device, generation in found.items() if generation is None]
    made: dict[str, Future[Generation]] = {}
    if missing:
        listeners = device_listeners(endpoints)
        with operator(endpoints) as asking, ThreadPoolExecutor(SIDE_BY_SIDE_MAX, thread_name_prefix="enrol") as pool:
            for device in missing:
                identity = IdentityFolder(identity_folder(endpoints, device))
                made[device] = pool.submit(enrol, asking.invite(device, LOCAL_GROUP, listeners), identity)
    return {device: generation or made[device].result() for device, generation in found.items()}


def ensure_identity(endpoints: Endpoints, device: str) -> Generation:
    """Like `ensure_identities`, for one device."""
    return ensure_identities(endpoints, (device,))[device]


def operator(endpoints: Endpoints) -> Operator:
    """Return a connection to the enrolment service, to be entered."""
    mqtt = endpoints.mqtt
    files = mqtt.operator
    return Operator(
        MqttConfig(mqtt.host, mqtt.services_port, files.ca_file, files.cert_file, files.key_file), OPERATOR_NAME
    )


def device_listeners(endpoints: Endpoints) -> DeviceListeners:
    """Return what an invitation tells a device of this stack's broker."""
    mqtt = endpoints.mqtt
    return DeviceListeners(mqtt.host, mqtt.port, mqtt.bootstrap_port, Path(mqtt.ca_file).read_text())


def invite(endpoints: Endpoints, device: str, group: str, valid_s: int = INVITATION_VALID_S) -> Invitation:
    """Invite a device; raises as `Operator.invite`."""
    with operator(endpoints) as asking:
        return asking.invite(device, group, device_listeners(endpoints), valid_s)


def _usable(endpoints: Endpoints, device: str) -> Generation | None:
    folder = identity_folder(endpoints, device)
    found = IdentityFolder(folder).current() if folder.exists() else None
    # A replay does not renew; past the time at which a running agent would, it is enrolled anew.
    fresh = found is not None and renew_at_ms(found.validity, 0.0) > time.time() * 1_000
    return found if fresh else None
