"""A broker and an enrolment service of one's own, and clients that remember all that the broker tells them."""

import shutil
import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts.enrolment import Invitation
from edge_agent.adapters.identity import Generation, IdentityFolder
from edge_agent.enrolment.bootstrap import enrol
from gateway.enrolment import status
from gateway.enrolment.operator import DeviceListeners, Operator
from gateway.enrolment.status import EnrolmentStatus
from infra.launcher.certificates import OPERATOR_NAME, ensure_certificates
from infra.launcher.model import Context
from infra.launcher.parts import mosquitto, services
from infra.launcher.ports import free_port_base
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import HOST, StackSettings
from tests.processes import Daemon, OwnProcess
from tests.waiting import DEADLINE_S, eventually

CLAIM_FILES = ("claim.pem", "claim.key")
SESSION_S = 3_600
PENDING_S = 2  # the real broker lets connections wait longer; no test here holds one back for so long


class Files(msgspec.Struct, frozen=True):
    """What a TLS client shows."""

    cert_file: str
    key_file: str


class Peer:
    """One connection to a listener, never made again by itself."""

    def __init__(
        self,
        plant: "Plant",
        listener: str,
        files: Files | Generation,
        client_id: str,
        *,
        keep_session: bool = False,
        will: str | None = None,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.granted: list[int] = []
        self.connected, self.gone = threading.Event(), threading.Event()
        self.session_present = False
        self._reasons: dict[int, int] = {}
        self._subscribed = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTv5, reconnect_on_failure=False
        )
        self._client.tls_set(plant.ca_file, files.cert_file, files.key_file)
        if will is not None:
            self._client.will_set(will, b"will", qos=1)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_: self.gone.set()
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_S if keep_session else 0
        try:
            self._client.connect(
                HOST, plant.settings.port(listener), clean_start=not keep_session, properties=properties
            )
        except ssl.SSLError:
            self.gone.set()
            return
        self._client.loop_start()

    def is_in(self) -> bool:
        """Wait for the broker's verdict on the connection."""
        eventually(lambda: self.connected.is_set() or self.gone.is_set(), "the broker lets the client in or not")
        return self.connected.is_set()

    def publish(self, topic: str, payload: bytes = b"x", retain: bool = False) -> int:
        """Publish and return the broker's reason code."""
        mid = self._client.publish(topic, payload, qos=1, retain=retain).mid
        return eventually(lambda: self._reasons.get(mid), f"PUBACK for {topic}")

    def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe and wait for the answer, whatever it is."""
        self._subscribed.clear()
        self._client.subscribe([(name, 1) for name in filters])
        assert self._subscribed.wait(DEADLINE_S)

    def close(self) -> None:
        """Say goodbye."""
        self._client.disconnect()
        self._client.loop_stop()

    def break_off(self) -> None:
        """Leave without a goodbye, so that the will is published."""
        sock: Any = self._client.socket()
        sock.close()
        self._client.loop_stop()

    def _on_connect(self, _client: Client, _data: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not reason.is_failure:
            self.session_present = flags.session_present
            self.connected.set()

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        self.granted = [reason.value for reason in reasons]
        self._subscribed.set()

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._reasons[mid] = reason.value

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))


class Plant:
    """Broker and enrolment service on free ports under one folder. Certificates are good for `valid_s`."""

    def __init__(self, folder: Path, valid_s: int = 3_600) -> None:
        self.settings = StackSettings(state_dir=folder, port_base=free_port_base(Random()))
        ensure_certificates(self.settings)
        self.context = Context(self.settings, load_secrets(self.settings))
        self.folder = mosquitto.identity_dir(self.context)
        self.broker = Daemon(mosquitto.part(self.context), self.context)
        config = msgspec.structs.replace(
            services.enrolment_config(self.context), certificate_valid_s=valid_s, pending_connection_s=PENDING_S
        )
        self.service: OwnProcess[EnrolmentStatus] = OwnProcess(
            "gateway.enrolment", folder, msgspec.json.encode(config), status.decode
        )
        self._peers: list[Peer] = []

    @property
    def ca_file(self) -> str:
        """The authority of the broker's own certificate."""
        return str(self.context.certificate("ca").ca_file)

    @property
    def listeners(self) -> DeviceListeners:
        """What an invitation says of the broker."""
        port = self.settings.port
        return DeviceListeners(HOST, port("mosquitto"), port("mosquitto_bootstrap"), Path(self.ca_file).read_text())

    def start(self) -> None:
        """Start both."""
        self.broker.start()
        self.service.start()

    def close(self) -> None:
        """End both."""
        for peer in self._peers:
            peer.close()
        self.service.stop()
        self.broker.stop()

    def wipe_broker(self) -> None:
        """Kill the broker, destroy its disk, start it again."""
        self.broker.kill()
        shutil.rmtree(self.context.data(mosquitto.NAME))
        self.broker.start()

    def operator(self) -> Operator:
        """Return an operator's connection, to be entered."""
        return Operator(services.mqtt_config(self.context, OPERATOR_NAME, "mosquitto_services"), OPERATOR_NAME)

    def invite(self, device: str, valid_s: int = 3_600) -> Invitation:
        """Invite a device."""
        with self.operator() as operator:
            return operator.invite(device, "测试组", self.listeners, valid_s)

    def identity(self, device: str) -> IdentityFolder:
        """Return the device's folder of keys."""
        return IdentityFolder(self.settings.state_dir / "devices" / device)

    def enrol(self, device: str) -> Generation:
        """Invite and enrol a device."""
        return enrol(self.invite(device), self.identity(device))

    def files(self, name: str) -> Files:
        """Return a service's certificate."""
        paths = self.context.certificate(name)
        return Files(str(paths.certificate_file), str(paths.key_file))

    def claim_files(self, invitation: Invitation) -> Files:
        """Write an invitation's claim certificate where a client can read it."""
        folder = self.settings.state_dir / "claims" / invitation.device
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = (folder / name for name in CLAIM_FILES)
        certificate.write_text(invitation.claim_certificate_pem)
        key.write_text(invitation.claim_key_pem)
        return Files(str(certificate), str(key))

    def peer(self, listener: str, files: Files | Generation, client_id: str, **options: Any) -> Peer:
        """Connect a client that is closed with the plant."""
        self._peers.append(Peer(self, listener, files, client_id, **options))
        return self._peers[-1]
