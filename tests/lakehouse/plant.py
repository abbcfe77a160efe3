"""A log, a database and two stores of one's own, so that tests may kill them and the processes over them."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from contracts import topics, watermark
from contracts.watermark import Watermark
from infra.launcher.certificates import ensure_certificates
from infra.launcher.model import Context
from infra.launcher.parts import kafka, postgres, services, store_a, store_b
from infra.launcher.ports import free_port_base
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import StackSettings
from lakehouse.config import LakeConfig
from lakehouse.status import IngestStatus
from tests.processes import Daemon, OwnProcess
from tests.waiting import DEADLINE_S

POLL_S: Final = 0.05


class Plant:
    """Kafka, PostgreSQL and both stores on free ports under one folder."""

    def __init__(self, folder: Path, rng: Random) -> None:
        self.settings = StackSettings(state_dir=folder, port_base=free_port_base(rng))
        ensure_certificates(self.settings)
        self.context = Context(self.settings, load_secrets(self.settings))
        parts = (kafka.part, postgres.part, store_a.part, store_b.part)
        self.daemons = [Daemon(part(self.context), self.context) for part in parts]
        self.log, self.database, self.store_a, self.store_b = self.daemons
        self._producer: Producer | None = None

    def start(self) -> None:
        self.settings.socket_path("any").parent.mkdir(parents=True, exist_ok=True)
        for daemon in self.daemons:
            daemon.start()

    @property
    def config(self) -> LakeConfig:
        return services.lake_config(self.context)

    @property
    def producer(self) -> Producer:
        if self._producer is None:
            self._producer = Producer({"bootstrap.servers": self.config.kafka_bootstrap, "log_level": 0})
        return self._producer

    def send(self, origin: str, batches: Iterable[bytes]) -> None:
        """Write batches as the gateway does."""
        for batch in batches:
            self.producer.produce(topics.BATCHES, batch, origin, headers=[(topics.ORIGIN_HEADER, origin.encode())])
            self.producer.poll(0)
        assert self.producer.flush(DEADLINE_S) == 0

    def watermarks(self) -> dict[tuple[str, str], Watermark]:
        """The newest watermark by (origin, contract)."""
        marks = [watermark.decode_watermark(value) for value in self.read(topics.WATERMARKS)]
        return {(mark.origin, mark.contract): mark for mark in marks}

    def read(self, topic: str) -> list[bytes]:
        """All values of a one-partition topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.config.kafka_bootstrap, "group.id": "test", "enable.auto.commit": False}
        )
        try:
            partition = TopicPartition(topic, 0, OFFSET_BEGINNING)
            end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)[1]
            consumer.assign([partition])
            found: list[bytes] = []
            while consumer.position([partition])[0].offset < end and len(found) < end:
                found += [m.value() or b"" for m in consumer.consume(1_000, POLL_S) if m.error() is None]
            return found
        finally:
            consumer.close()

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.stop()


class Service(OwnProcess[IngestStatus]):
    """The ingest or the maintenance process."""

    def __init__(self, module: str, folder: Path, config: LakeConfig) -> None:
        super().__init__(module, folder, msgspec.json.encode(config), msgspec.json.Decoder(IngestStatus).decode)
