"""A broker, a log and gateways of one's own, so that tests may kill them."""

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from contracts import topics, watermark
from contracts.watermark import Watermark
from gateway import status
from gateway.adapters.broker import SESSION_EXPIRY_S
from gateway.status import GatewayStatus
from infra.launcher.certificates import GATEWAY_NAME, ensure_certificates
from infra.launcher.model import Context
from infra.launcher.parts import kafka, mosquitto
from infra.launcher.ports import free_port_base
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import HOST, StackSettings
from tests.identities import client_files
from tests.processes import Daemon, OwnProcess
from tests.waiting import DEADLINE_S, PROBE_EVERY_S, eventually


class GatewayProcess(OwnProcess[GatewayStatus]):
    """One gateway."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        super().__init__("gateway", folder, json.dumps(config).encode(), status.decode)

    def status(self) -> GatewayStatus | None:
        """Return the newest status of this process; one that an earlier process left is passed over."""
        found = super().status()
        return found if found is not None and found.pid == self.pid else None


class Device:
    """A device's connection: publishes, remembers the reason code of each PUBACK, and what was sent down to it."""

    def __init__(self, plant: "Plant", name: str) -> None:
        self.name = name
        self.acks: list[bytes] = []
        self._reasons: dict[int, int] = {}
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
        self._client.tls_set(*client_files(plant.settings, name))
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
                "port": self.settings.port("mosquitto_services"),
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

    def take_session(self, shard: int) -> None:
        """Break the connection of a shard's gateway: connect by its name, which the broker grants one client, leave."""
        paths = self.context.certificate(GATEWAY_NAME)
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"fieldlake-gateway-{shard}", protocol=MQTTv5)
        client.tls_set(str(paths.ca_file), str(paths.certificate_file), str(paths.key_file))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = SESSION_EXPIRY_S
        connected = threading.Event()
        client.on_connect = lambda *_: connected.set()
        port = self.settings.port("mosquitto_services")
        client.connect(HOST, port, clean_start=False, properties=properties)
        client.loop_start()
        assert connected.wait(DEADLINE_S), f"no session of shard {shard}"
        client.disconnect()
        client.loop_stop()

    def await_records(self, topic: str, key: str, enough: Callable[[list[Message]], bool], what: str) -> list[Message]:
        """Read a topic from its beginning until the messages with this key are enough; return those."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "test", "enable.auto.commit": False, "log_level": 0}
        )
        found: list[Message] = []
        passed_over: Counter[str] = Counter()

        def probe() -> bool:
            for message in consumer.consume(1_000, PROBE_EVERY_S):
                error = message.error()
                if error is None and message.key() == key.encode():
                    found.append(message)
                else:
                    passed_over["of another key" if error is None else str(error)] += 1
            return enough(found)

        try:
            partitions = next(t.partitions for t in topics.KAFKA_TOPICS if t.name == topic)
            consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
            eventually(probe, lambda: f"{what}; found {len(found)} of {key}, passed over {dict(passed_over)}")
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
