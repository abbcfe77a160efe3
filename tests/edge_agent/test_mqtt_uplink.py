"""A connection that is given up while it begins: its thread either runs by then, and is waited for, or never will."""

import threading
from pathlib import Path
from typing import Any, Final

import pytest
from paho.mqtt.client import Client

from edge_agent.adapters.mqtt import MqttUplink, QueueInbox
from edge_agent.config import MqttConfig
from tests.edge_agent.plant import HOST, Certificates
from tests.waiting import DEADLINE_S, eventually

EPOCH: Final = 1
EARLY_S: Final = 0.2  # s; for so long a thread that begins gives others the chance to be too early


@pytest.fixture
def uplink(tmp_path: Path) -> MqttUplink:
    certificates = Certificates(tmp_path)
    cert_file, key_file = certificates.issue("device-1")
    config = MqttConfig(HOST, 1, str(certificates.ca_file), str(cert_file), str(key_file))
    return MqttUplink(config, "device-1", 0, QueueInbox(), lambda: (str(cert_file), str(key_file)))


@pytest.mark.parametrize("way", ["drop", "close"])
def test_given_up_before_it_has_a_thread(uplink: MqttUplink, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    threads: list[str] = []

    def connect(_client: Client, *_: Any, **__: Any) -> None:
        connecting.set()
        assert go_on.wait(DEADLINE_S)

    monkeypatch.setattr(Client, "connect", connect)
    monkeypatch.setattr(Client, "loop_start", lambda _client: threads.append("begun"))
    uplink.connect(EPOCH)
    assert connecting.wait(DEADLINE_S)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "connect"]
    give_up(uplink, way)
    go_on.set()
    eventually(lambda: not thread.is_alive(), "the connection ends")
    assert threads == []


@pytest.mark.parametrize("way", ["drop", "close"])
def test_given_up_while_it_gets_its_thread(uplink: MqttUplink, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    beginning, ended = threading.Event(), threading.Event()
    steps: list[str] = []

    def loop_start(_client: Client) -> None:
        beginning.set()
        ended.wait(EARLY_S)
        steps.append("begun")

    def loop_stop(_client: Client) -> None:
        steps.append("ended")
        ended.set()

    monkeypatch.setattr(Client, "connect", lambda *_, **__: None)
    monkeypatch.setattr(Client, "loop_start", loop_start)
    monkeypatch.setattr(Client, "loop_stop", loop_stop)
    uplink.connect(EPOCH)
    assert beginning.wait(DEADLINE_S)
    give_up(uplink, way)
    assert steps == ["begun", "ended"]


def give_up(uplink: MqttUplink, way: str) -> None:
    if way == "drop":
        uplink.drop()
    else:
        uplink.close(EPOCH)
