"""The bundle server as a process with a real broker: what is published is announced, fetched, never forgotten."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from contracts import releases, topics
from gateway.bundles import membership
from gateway.bundles.config import BundlesConfig
from gateway.bundles.server import BundlesStatus
from gateway.config import MqttConfig
from tests.edge_agent.plant import HOST, Broker, free_port
from tests.edge_agent.supply import DEVICE, Device, Supply
from tests.processes import OwnProcess
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack


class Ear:
    """A device that listens to its announcements."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.heard: list[int] = []
        self.subscribed = threading.Event()
        cert_file, key_file = broker.certificates.issue(name)
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
        self._client.tls_set(str(broker.certificates.ca_file), str(cert_file), str(key_file))
        self._client.on_connect = lambda client, *_: client.subscribe(topics.bundle(name), qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect(HOST, broker.port)
        self._client.loop_start()
        assert self.subscribed.wait(DEADLINE_S)

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.heard.append(releases.decode(message.payload).timestamp_version)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    supply = Supply(tmp_path)
    supply.publish("1")
    return supply


@pytest.fixture
def server(tmp_path: Path, broker: Broker, supply: Supply) -> Iterator[OwnProcess[BundlesStatus]]:
    cert_file, key_file = broker.certificates.issue("lake")  # whom this broker lets write below `down`
    ca_file = str(broker.certificates.ca_file)
    config = BundlesConfig(
        HOST, free_port(), str(cert_file), str(key_file), ca_file, str(supply.served), str(tmp_path / "groups.json"),
        str(tmp_path / "seen.json"), MqttConfig(HOST, broker.port, ca_file, str(cert_file), str(key_file)),
    )  # fmt: skip
    process = OwnProcess(
        "gateway.bundles",
        tmp_path,
        msgspec.json.encode(config),
        lambda data: msgspec.json.decode(data, type=BundlesStatus),
    )
    yield process
    process.stop()


@pytest.fixture
def listen(broker: Broker) -> Iterator[Callable[[str], Ear]]:
    ears: list[Ear] = []

    def listen_as(name: str) -> Ear:
        ears.append(Ear(broker, name))
        return ears[-1]

    yield listen_as
    for ear in ears:
        ear.close()


def test_a_published_bundle_is_announced_to_known_devices_and_fetched(
    tmp_path: Path, broker: Broker, supply: Supply, server: OwnProcess[BundlesStatus], listen: Callable[[str], Ear]
) -> None:
    membership.assign(tmp_path / "groups.json", "press-02", "canary")
    server.start()
    named, stranger = listen("press-02"), listen("press-03")
    eventually(lambda: named.heard == [2], "the device that the document names hears of the first release")
    url = f"https://{HOST}:{msgspec.json.decode(server.config_file.read_bytes())['port']}"
    device = Device(tmp_path / "device", url, supply.repository.root(), broker.certificates)
    assert device.update(announced=2).outcome == "activated"
    asking = listen(DEVICE)
    eventually(lambda: asking.heard == [2], "a device that has asked is told too, by a retained message")
    supply.publish("2")
    eventually(lambda: asking.heard[-1] == 3 and named.heard[-1] == 3, "both hear of the second release")
    assert device.update(announced=3).outcome == "staged"
    assert stranger.heard == []
    crowd = [f"press-{number:03}" for number in range(450)]
    document = membership.Membership(devices=dict.fromkeys([*crowd, "press-02"], "canary"))
    (tmp_path / "groups.json").write_bytes(msgspec.json.encode(document))
    server.await_status(lambda found: found.told == 452, "more devices than may be under way are told")
    status = server.await_status(lambda found: found.broker_connected, "a status")
    assert (status.timestamp_version, status.devices, status.broker_connected) == (3, 1, True)


def test_a_wiped_broker_and_a_killed_server_forget_nobody(
    tmp_path: Path, broker: Broker, supply: Supply, server: OwnProcess[BundlesStatus], listen: Callable[[str], Ear]
) -> None:
    membership.assign(tmp_path / "groups.json", "press-02", "canary")
    server.start()
    server.await_status(lambda found: found.told == 1, "the device is told")
    broker.kill()
    broker.start()
    late = listen("press-02")
    eventually(lambda: late.heard == [2], "a broker without memory is told again")
    server.kill()
    supply.publish("2")
    server.start()
    eventually(lambda: late.heard[-1] == 3, "the next process tells what was signed meanwhile")
    assert server.stop() == 0
    assert not server.ready_file.exists()
