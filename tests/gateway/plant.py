"""A broker, a log and gateways of one's own, so that tests may kill them."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final, TypeVar

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from contracts import topics, watermark
from contracts.watermark import Watermark
from gateway import status
from gateway.status import GatewayStatus
from infra.launcher.accounts import is_root
from infra.launcher.certificates import GATEWAY_NAME, ensure_certificates, issue_device_certificate
from infra.launcher.errors import NotReadyError
from infra.launcher.files import write_file
from infra.launcher.model import Context, Part
from infra.launcher.parts import kafka, mosquitto
from infra.launcher.ports import free_port_base
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import HOST, StackSettings
from infra.setup.paths import repo_root

DEADLINE_S: Final = 120.0  # seconds; everything here takes a few, the rest is room for a busy machine
PROBE_EVERY_S: Final = 0.02

Found = TypeVar("Found")


def eventually(probe: Callable[[], Found | None], what: str, deadline_s: float = DEADLINE_S) -> Found:
    """Return the probe's first result that is neither None nor False; fail when the deadline passes."""
    until, pause = monotonic() + deadline_s, threading.Event()
    while monotonic() < until:
        found = probe()
        if found is not None and found is not False:
            return found
        pause.wait(PROBE_EVERY_S)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what}")


class Daemon:
    """One part of the stack as a process of ours."""

    def __init__(self, part: Part, context: Context) -> None:
        self.part, self._context = part, context
        self._process: subprocess.Popen[bytes] | None = None
        for file in part.files:
            write_file(file.path, file.text.encode())
        for folder in part.owned:
            folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it and wait until it does its work."""
        self.part.prepare(self._context)
        log = self._context.settings.logs_dir / f"{self.part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        user = self.part.user if is_root() else None
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.part.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, user=user
            )
        eventually(self._is_ready, f"{self.part.name} is ready, log {log}")
        self.part.provision(self._context)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it whatever its state."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.part.name} ended with {self._process.returncode}"
        try:
            self.part.probe(self._context)
        except NotReadyError:
            return False
        return True


class GatewayProcess:
    """One gateway as the launcher would start it."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.config_file = folder / "gateway.json"
        self.log_file = folder / "gateway.log"
        self.ready_file = folder / "gateway.json.ready"
        self.config_file.write_text(json.dumps(config))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, until_ready: bool = True) -> None:
        """Start it and, unless told otherwise, wait for its ready file."""
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "gateway", "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=repo_root(),
            )  # fmt: skip
        if until_ready:
            eventually(self._is_ready, f"gateway is ready, log {self.log_file}")

    def kill(self) -> None:
        """End it with kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=DEADLINE_S)

    def status(self) -> GatewayStatus | None:
        """Return the newest status of this process, None before its first."""
        path = self.config_file.with_name("gateway.json.status.json")
        assert self._process is not None
        if not path.exists():
            return None
        found = status.decode(path.read_bytes())
        return found if found.pid == self._process.pid else None

    def await_status(self, condition: Callable[[GatewayStatus], bool], what: str) -> GatewayStatus:
        """Wait until the status satisfies a condition and return it."""

        def probe() -> GatewayStatus | None:
            found = self.status()
            return found if found is not None and condition(found) else None

        return eventually(probe, f"{what}; last status {self.status()}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        return self.ready_file.exists() and self.ready_file.read_text() == f"{self._process.pid}\n"


class Device:
    """A device's connection: publishes, remembers the reason code of each PUBACK, and what was sent down to it."""

    def __init__(self, plant: "Plant", name: str) -> None:
        self.name = name
        self.acks: list[bytes] = []
        self._reasons: dict[int, int] = {}
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
        paths = issue_device_certificate(plant.settings, name)
        self._client.tls_set(str(paths.ca_file), str(paths.certificate_file), str(paths.key_file))
        self._client.on_connect = lambda client, *_: client.subscribe(topics.ack(name), qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(HOST, plant.settings.port("mosquitto"))
        self._client.loop_start()
        assert self._subscribed.wait(DEADLINE_S), f"{name} could not subscribe"

    def publish(self, topic: str, payload: bytes) -> int:
        """Publish with QoS 1; return the packet identifier to ask `reason` for."""
        return self._client.publish(topic, payload, qos=1).mid

    def reason(self, mid: int) -> int:
        """Wait for the broker's answer to a publish and return its reason code."""
        return eventually(lambda: self._reasons.get(mid), f"PUBACK of {mid} to {self.name}")

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_publish(self, _client: Client, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._reasons[mid] = int(reason.value)

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.acks.append(bytes(message.payload))


class Plant:
    """A broker and a log on free ports under one folder."""

    def __init__(self, folder: Path, rng: Random) -> None:
        self.settings = StackSettings(state_dir=folder, port_base=free_port_base(rng))
        ensure_certificates(self.settings)
        context = Context(self.settings, load_secrets(self.settings))
        self.context = context
        self.broker = Daemon(mosquitto.part(context), context)
        self.log = Daemon(kafka.part(context), context)

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return kafka.bootstrap(self.context)

    def gateway_config(self, shard: int) -> dict[str, Any]:
        """Return a gateway's configuration as it stands in its file."""
        paths = self.context.certificate(GATEWAY_NAME)
        return {
            "kafka_bootstrap": self.bootstrap,
            "mqtt": {
                "host": HOST,
                "port": self.settings.port("mosquitto"),
                "ca_file": str(paths.ca_file),
                "cert_file": str(paths.certificate_file),
                "key_file": str(paths.key_file),
            },
            "shard": shard,
        }

    def wipe_broker(self) -> None:
        """Kill the broker, destroy its disk, start it again."""
        self.broker.kill()
        shutil.rmtree(self.context.data(mosquitto.NAME))
        self.broker.start()

    def await_records(self, topic: str, key: str, enough: Callable[[list[Message]], bool], what: str) -> list[Message]:
        """Read a topic from its beginning until the messages with this key are enough; return those."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "test", "enable.auto.commit": False, "log_level": 0}
        )
        found: list[Message] = []

        def probe() -> bool:
            messages = [m for m in consumer.consume(1_000, PROBE_EVERY_S) if m.error() is None]
            found.extend(m for m in messages if m.key() == key.encode())
            return enough(found)

        try:
            partitions = next(t.partitions for t in topics.KAFKA_TOPICS if t.name == topic)
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
            eventually(probe, f"{what}; found {len(found)}")
        finally:
            consumer.close()
        return found

    def write_watermark(self, mark: Watermark) -> None:
        """Write a watermark as the lake does."""
        self.write(topics.WATERMARKS, watermark.key(mark), watermark.encode(mark))

    def write(self, topic: str, key: bytes, value: bytes) -> None:
        """Write one message and wait until Kafka has it."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "log_level": 0})
        producer.produce(topic, value=value, key=key)
        assert producer.flush(DEADLINE_S) == 0

    def close(self) -> None:
        """End what was started."""
        self.log.stop()
        self.broker.stop()
