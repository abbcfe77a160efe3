"""Sensors on a real broker of the device's own network."""

import getpass
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.adapters import mqtt_source
from edge_agent.adapters.opening import open_pushed
from edge_agent.config import MqttSource, Subscription
from edge_agent.core.refusal import EVENT_BYTES_MAX
from tests.edge_agent.plant import HOST, Broker, free_port
from tests.edge_agent.producing import CONTRACT, Loop
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack


class SensorBroker(Broker):
    """A mosquitto as it stands beside a machine: open on loopback, with TLS and a certificate for others."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.tls_port = free_port()
        cert_file, key_file = self.certificates.issue("local")
        self._config.write_text(
            f"listener {self.port} {HOST}\nlistener {self.tls_port} {HOST}\ncafile {self.certificates.ca_file}\n"
            f"certfile {cert_file}\nkeyfile {key_file}\nrequire_certificate true\nallow_anonymous true\n"
            f"persistence false\nmax_inflight_messages 0\nmax_queued_messages 0\nuser {getpass.getuser()}\n"
        )


class Sensor:
    """Publishes with QoS 1 and waits until the broker has it."""

    def __init__(self, broker: SensorBroker) -> None:
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        self._client.connect(HOST, broker.port)
        self._client.loop_start()

    def publish(self, topic: str, *payloads: bytes, qos: int = 1, retain: bool = False) -> None:
        for sent in [self._client.publish(topic, payload, qos=qos, retain=retain) for payload in payloads]:
            sent.wait_for_publish(DEADLINE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SensorBroker]:
    broker = SensorBroker(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def sensor(broker: SensorBroker) -> Iterator[Sensor]:
    sensor = Sensor(broker)
    yield sensor
    sensor.close()


def config(broker: SensorBroker, **changes: Any) -> MqttSource:
    subscriptions = (Subscription("halle/+/state", CONTRACT), Subscription("halle/+", CONTRACT, "n"))
    return msgspec.structs.replace(MqttSource("sensors", HOST, "agent", subscriptions, broker.port), **changes)


@pytest.fixture
def loop(broker: SensorBroker) -> Iterator[Loop]:
    loop = Loop(lambda put: open_pushed(config(broker), put))
    yield loop
    loop.close()


PROBES = itertools.count()


def subscribed(loop: Loop, sensor: Sensor) -> None:
    """Wait until what is published arrives, by events that the tests do not count."""
    known = next(PROBES)

    def is_there() -> bool:
        sensor.publish("halle/0/state", b'{"probe":%d}' % next(PROBES))
        return any(json.loads(line).get("probe", -1) > known for line in loop.durable if b"probe" in line)

    eventually(is_there, "the source is subscribed")
    eventually(lambda: loop.settled == len(loop.offered), "all probes are settled")


def events(first: int, end: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(first, end)]


def counted(loop: Loop) -> list[bytes]:
    return [line for line in loop.durable if b"probe" not in line]


def awaited(loop: Loop, wanted: list[bytes]) -> None:
    """Wait for these events; afterwards they are there, in this order, once."""
    eventually(lambda: len(counted(loop)) >= len(wanted), f"{len(wanted)} events are durable")
    eventually(lambda: loop.settled == len(loop.offered), "all offers are settled")
    assert counted(loop) == wanted


@pytest.mark.parametrize("gate", ["admits", "writes", "settles"])
def test_what_was_not_settled_comes_again_and_is_there_once(loop: Loop, sensor: Sensor, gate: str) -> None:
    subscribed(loop, sensor)
    before = loop.written
    getattr(loop, gate).clear()
    sensor.publish("halle/7", *events(0, 3))
    eventually(lambda: loop.written > before if gate == "settles" else loop.unanswered > 0, "the events arrive")
    loop.crash()
    sensor.publish("halle/7", *events(3, 5))
    awaited(loop, events(0, 5))
    lines = [line for offered in loop.offered for line in offered.lines]
    assert set(events(0, 3)) & set(lines), "the broker has sent them again"


def test_what_was_settled_does_not_come_again(loop: Loop, sensor: Sensor) -> None:
    subscribed(loop, sensor)
    sensor.publish("halle/7", *events(0, 3))
    awaited(loop, events(0, 3))

    def is_acknowledged() -> bool:
        loop.crash()
        probe = b'{"probe":%d}' % next(PROBES)
        sensor.publish("halle/0/state", probe)
        eventually(lambda: any(probe in offered.lines for offered in loop.offered), "the probe arrives")
        return all(b"probe" in line for offered in loop.offered for line in offered.lines)

    eventually(is_acknowledged, "the broker has taken the acknowledgements")
    assert counted(loop) == events(0, 3)


def test_what_a_sensor_sends_twice_is_there_once_where_it_has_a_number(loop: Loop, sensor: Sensor) -> None:
    subscribed(loop, sensor)
    sensor.publish("halle/7", *events(0, 3), *events(1, 4), b'{"n":9}')
    sensor.publish("halle/7/state", b'{"on":1}', b'{"on":1}')
    wanted = sorted([*events(0, 4), b'{"n":9}', b'{"on":1}', b'{"on":1}'])
    eventually(lambda: sorted(counted(loop)) == wanted, lambda: f"each is there once, found {loop.durable}")


def test_messages_are_taken_whatever_is_in_them(loop: Loop, sensor: Sensor) -> None:
    subscribed(loop, sensor)
    payloads = [b'{"n":1}\n{"n":2}\n', b"", b"\xff\xfe", '{"名":"设备"}'.encode(), b"x" * (EVENT_BYTES_MAX + 9)]
    sensor.publish("halle/7", *payloads)
    sensor.publish("halle/8", b'{"n":5}', qos=0)
    wanted = [b'{"n":1}', b'{"n":2}', b'{"n":5}', *payloads[1:4], b"x" * (EVENT_BYTES_MAX + 1)]
    eventually(lambda: sorted(counted(loop)) == sorted(wanted), "all lines are durable")


def test_a_flood_waits_at_the_broker_and_loses_nothing(
    broker: SensorBroker, sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_source, "UNANSWERED_MAX", 100)
    loop = Loop(lambda put: open_pushed(config(broker), put))
    subscribed(loop, sensor)
    loop.writes.clear()
    sensor.publish("halle/7", *events(0, 1_000))
    eventually(lambda: loop.unanswered > 0, "the flood has begun")
    loop.writes.set()
    awaited(loop, events(0, 1_000))
    assert loop.peak <= 100
    loop.close()


def test_what_is_held_is_bounded_in_bytes_too(
    broker: SensorBroker, sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_source, "BYTES_MAX", 100 * 1_024)
    loop = Loop(lambda put: open_pushed(config(broker), put))
    subscribed(loop, sensor)
    wanted = [b'{"n":%d,"text":"%s"}' % (number, b"x" * 490) for number in range(900)]
    loop.writes.clear()
    sensor.publish("halle/7", *wanted)
    eventually(lambda: loop.unanswered > 0, "the flood has begun")
    loop.writes.set()
    awaited(loop, wanted)
    assert loop.peak <= 101  # of 1,020 bytes and more each
    loop.close()


def test_an_agent_that_is_full_is_sent_the_same_later(loop: Loop, sensor: Sensor) -> None:
    subscribed(loop, sensor)
    loop.is_full = True
    before = loop.settled
    sensor.publish("halle/7", *events(0, 3))
    eventually(lambda: loop.settled > before, "they were not taken")
    loop.is_full = False
    awaited(loop, events(0, 3))


def test_a_broker_that_went_away_is_found_again(loop: Loop, broker: SensorBroker, sensor: Sensor) -> None:
    subscribed(loop, sensor)
    broker.kill()
    broker.start()
    other = Sensor(broker)
    subscribed(loop, other)
    other.publish("halle/7", *events(0, 3))
    awaited(loop, events(0, 3))
    other.close()


def test_a_retained_message_comes_once(loop: Loop, sensor: Sensor) -> None:
    sensor.publish("halle/7/state", b'{"on":1}', retain=True)
    subscribed(loop, sensor)
    seen = [line for offered in loop.offered for line in offered.lines].count(b'{"on":1}')
    assert seen == 1
    loop.crash()
    subscribed(loop, sensor)
    assert b'{"on":1}' not in [line for offered in loop.offered for line in offered.lines]


# The library leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:Exception ignored in. <ssl.SSLSocket")
def test_with_tls_the_broker_must_show_a_certificate_that_we_trust(broker: SensorBroker, sensor: Sensor) -> None:
    cert_file, key_file = broker.certificates.issue("agent")
    secure = {"port": broker.tls_port, "cert_file": str(cert_file), "key_file": str(key_file)}
    trusting = config(broker, ca_file=str(broker.certificates.ca_file), **secure)
    loop = Loop(lambda put: open_pushed(trusting, put))
    subscribed(loop, sensor)
    sensor.publish("halle/7", *events(0, 200))
    awaited(loop, events(0, 200))
    loop.close()
    doubting = config(broker, ca_file="/etc/ssl/certs/ca-certificates.crt", **secure)
    loop = Loop(lambda put: open_pushed(doubting, put))
    said = eventually(lambda: loop.source.trouble, "it says what is wrong")
    assert "certificate" in said.lower()
    loop.close()


def test_a_broker_that_is_not_there_is_said_and_closing_does_not_wait_for_it(tmp_path: Path) -> None:
    nowhere = MqttSource("sensors", HOST, "agent", (Subscription("a", CONTRACT),), free_port())
    loop = Loop(lambda put: open_pushed(nowhere, put))
    said = eventually(lambda: loop.source.trouble, "it says what is wrong")
    assert json.dumps(nowhere.port) in said
    loop.close()
