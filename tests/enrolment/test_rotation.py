"""A device changes its certificate over its live connection, against a real broker and the real service."""

import datetime as dt
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from contracts import enrolment, topics
from contracts.enrolment import Granted
from edge_agent.adapters.rotation import Rotation
from edge_agent.core.updates.renewal import RenewalEvent
from edge_agent.enrolment.keys import make_request
from edge_agent.errors import IdentityError
from gateway.enrolment.authority import DEVICES, open_authority
from infra.launcher.certificates import GATEWAY_NAME
from infra.launcher.settings import HOST
from tests.enrolment.plant import Plant
from tests.waiting import eventually

pytestmark = pytest.mark.stack

SHARD = 6
RECONNECT_PAUSE_S = 0.05


class Clock:
    """Moved by hand: nobody waits for two thirds of a certificate's life."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1_000


class Agent:
    """The least of an agent: one thread owns a rotation and a connection, and publishes numbers until each is acked."""

    def __init__(self, plant: Plant, device: str, clock: Clock) -> None:
        self._plant, self._device, self._clock = plant, device, clock
        self.folder = plant.settings.state_dir / "devices" / device
        self.used: list[int] = []  # generations that opened a connection
        self.acked = self._open = 0
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._link = 0
        self._up = False
        self._client: Client | None = None
        self.rotation = Rotation(
            self.folder,
            device,
            put=self._put,
            publish=self._publish,
            reconnect=self._connect,
            clock=clock,
            random=lambda: 0.0,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._inbox.put(self._connect)
        self._thread.start()

    def tick(self) -> None:
        self._inbox.put(self.rotation.tick)

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (do := self._inbox.get()) is not None:
            do()
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def _put(self, event: RenewalEvent) -> None:
        self._inbox.put(lambda: self.rotation.on(event))

    def _publish(self, request: bytes) -> None:
        if self._client is not None:
            self._client.publish(topics.renew_request(self._device), request, qos=1)

    def _connect(self) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
        self._link, self._up = self._link + 1, False
        link, generation = self._link, self.rotation.credentials()
        client = Client(
            CallbackAPIVersion.VERSION2, client_id=self._device, protocol=MQTTv5, reconnect_on_failure=False
        )
        client.tls_set(self._plant.ca_file, generation.cert_file, generation.key_file)
        put = self._inbox.put
        client.on_connect = lambda c, *_: c.subscribe(f"fl/v1/down/{self._device}/#", qos=1)
        client.on_subscribe = lambda *_: put(lambda: self._link_up(link, generation.number))
        client.on_disconnect = lambda *_: put(lambda: self._link_down(link))
        client.on_publish = lambda _c, _d, mid, *_: put(lambda: self._acked(link, mid))

        def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
            document = bytes(message.payload)
            put(lambda: self.rotation.answered(document))

        client.on_message = on_message
        self._client = client
        client.connect(HOST, self._plant.settings.port("mosquitto"), clean_start=False)
        client.loop_start()

    def _link_up(self, link: int, generation: int) -> None:
        if link == self._link:
            self._up = True
            self.used.append(generation)
            self.rotation.link_up()
            self._send()

    def _link_down(self, link: int) -> None:
        if link == self._link:
            if not self._up:
                self.rotation.link_refused()
            self._up = False
            threading.Timer(RECONNECT_PAUSE_S, lambda: self._inbox.put(lambda: self._again(link))).start()

    def _again(self, link: int) -> None:
        if link == self._link and not self._up:
            self._connect()

    def _send(self) -> None:
        assert self._client is not None
        self._open = self._client.publish(topics.up(SHARD, self._device), str(self.acked).encode(), qos=1).mid

    def _acked(self, link: int, mid: int) -> None:
        if link == self._link and self._up and mid == self._open:
            self.acked += 1
            self._send()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("test_", "").replace("_", "-")[:60]


def due(plant: Plant, device: str) -> Clock:
    """Enrol a device; return a clock at which its certificate is to be renewed."""
    validity = plant.enrol(device).validity
    return Clock(validity.not_before_ms + (validity.not_after_ms - validity.not_before_ms) * 2 // 3)


def test_a_device_rotates_over_its_live_connection_and_loses_nothing(plant: Plant, device: str) -> None:
    clock = due(plant, device)
    gateway = plant.peer("mosquitto_services", plant.files(GATEWAY_NAME), "fieldlake-gateway-6")
    assert gateway.is_in()
    gateway.subscribe([topics.up(SHARD, device)])
    agent = Agent(plant, device, clock)
    agent.start()
    try:
        eventually(lambda: agent.acked > 20, "messages flow")
        agent.tick()
        eventually(lambda: 2 in agent.used, "a connection by the next certificate")
        reached = agent.acked
        eventually(lambda: agent.acked > reached + 20, "messages flow again")
        eventually(
            lambda: sorted(path.name for path in agent.folder.iterdir()) == ["2", "current"], "the old one is gone"
        )
    finally:
        agent.stop()
    assert agent.used == [1, 2]
    assert agent.rotation.last_error == ""
    everything = set(range(agent.acked))
    eventually(lambda: {int(payload) for _, payload in gateway.received} >= everything, "all that was acknowledged")


def test_a_kill_before_the_next_certificate_was_tried_costs_nothing(plant: Plant, device: str) -> None:
    clock = due(plant, device)
    agent = Agent(plant, device, clock)
    identity = plant.identity(device)
    issued = open_authority(plant.folder, DEVICES, dt.datetime.now(dt.UTC)).sign(
        make_request(identity.begin(), device).csr_pem, device, dt.timedelta(days=30), dt.datetime.now(dt.UTC)
    )
    identity.store(
        enrolment.encode(
            Granted(issued.key_sha256, issued.pem, issued.serial, issued.not_before_ms, issued.not_after_ms)
        )
    )
    agent = Agent(plant, device, clock)
    agent.start()
    try:
        eventually(lambda: agent.used == [2], "the next certificate is tried first")
        eventually(lambda: (agent.folder / "current").readlink() == Path("2"), "and is in use")
    finally:
        agent.stop()


def test_a_next_certificate_that_the_broker_refuses_is_thrown_away(plant: Plant, device: str, tmp_path: Path) -> None:
    clock = due(plant, device)
    identity = plant.identity(device)
    stranger = open_authority(tmp_path, DEVICES, dt.datetime.now(dt.UTC))
    issued = stranger.sign(
        make_request(identity.begin(), device).csr_pem, device, dt.timedelta(days=30), dt.datetime.now(dt.UTC)
    )
    identity.store(
        enrolment.encode(
            Granted(issued.key_sha256, issued.pem, issued.serial, issued.not_before_ms, issued.not_after_ms)
        )
    )
    agent = Agent(plant, device, clock)
    agent.start()
    try:
        eventually(lambda: agent.used == [1], "back with the present certificate")
        assert "opened no connection" in agent.rotation.last_error
        assert sorted(path.name for path in agent.folder.iterdir()) == ["1", "current"]
        clock.ms += 3_600_000
        agent.tick()
        eventually(lambda: agent.used == [1, 2], "and with a good one at the next attempt")
    finally:
        agent.stop()


def test_a_service_that_is_away_is_asked_again(plant: Plant, device: str) -> None:
    clock = due(plant, device)
    agent = Agent(plant, device, clock)
    plant.service.stop()
    agent.start()
    try:
        eventually(lambda: agent.used == [1], "connected")
        agent.tick()
        eventually(lambda: agent.rotation.next_due_ms() != clock.ms and _key(agent) is not None, "the child made a key")
        plant.service.start()

        def asked_again() -> bool:
            clock.ms += 31_000
            agent.tick()
            return 2 in agent.used

        eventually(asked_again, "the same request is answered")
    finally:
        agent.stop()


def _key(agent: Agent) -> Path | None:
    return next(agent.folder.glob("2/key.pem"), None)


def test_a_device_that_is_not_enrolled_has_nothing_to_rotate(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="give it an invitation"):
        Rotation(
            tmp_path,
            "nobody-1",
            put=lambda _event: None,
            publish=lambda _request: None,
            reconnect=lambda: None,
            clock=Clock(0),
            random=lambda: 0.0,
        )
