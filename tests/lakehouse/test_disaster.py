"""The drill of `docs/disaster.md` on a real log, database and both stores: what was lost comes back, and ingest goes on
exactly once. DuckDB counts."""

from urllib.parse import urlparse

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from pyarrow.fs import FileSelector

from contracts import topics
from contracts.topics import KAFKA_TOPICS
from contracts.watermark import decode_watermark
from lakehouse.catalog import open_catalog
from lakehouse.kafka.log import KafkaLog
from lakehouse.process import WallClock
from lakehouse.publish import publish_contracts
from lakehouse.rebuild import Rebuild, Source
from lakehouse.register import file_io, register
from tests.lakehouse import judge
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.plant import Plant, Service
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]
ROWS = 40
PER_BATCH = 8


class Drill:
    """Two origins, one per store, that send more before and after every loss."""

    def __init__(self, plant: Plant, ingest: Service, name: str) -> None:
        self.plant, self.ingest = plant, ingest
        self.device, self.collector = f"device-{name}", f"collector-{name}"
        self.sent = 0

    def send(self, first: int = 0) -> None:
        """Send what is new, and everything from `first` again."""
        self.sent += ROWS
        for at in range(first, self.sent, PER_BATCH):
            seqs = range(at, at + PER_BATCH)
            self.plant.send(self.device, [frame(TELEMETRY, telemetry(seqs))])
            self.plant.send(self.collector, [frame(CLICKS, clicks(seqs))])

    def assert_once(self) -> None:
        """Every event sent so far is committed, told of, and in its table once."""
        for origin, contract in ((self.device, TELEMETRY), (self.collector, CLICKS)):
            self._await_watermark(origin, contract.id)
            query = f"SELECT count(*), count(DISTINCT (epoch, seq)) FROM rows WHERE origin = '{origin}'"
            assert judge.read(self.plant.config, contract, query) == [(self.sent, self.sent)]

    def _await_watermark(self, origin: str, contract: str) -> None:
        eventually(lambda: self._upto(origin, contract) >= self.sent, f"watermark of {origin} at {self.sent}")

    def _upto(self, origin: str, contract: str) -> int:
        mark = self.plant.watermarks().get((origin, contract))
        return 0 if mark is None else mark.upto


def test_the_catalogs_database_is_lost(plant: Plant, ingest: Service) -> None:
    drill = Drill(plant, ingest, "catalog")
    ingest.start()
    drill.send()
    drill.assert_once()
    ingest.kill()
    uri = plant.config.catalogs[0].uri.replace("postgresql+psycopg2", "postgresql")
    with psycopg.connect(uri, autocommit=True) as database:
        known = database.execute("SELECT catalog_name, table_namespace, table_name FROM iceberg_tables").fetchall()
        database.execute("DROP TABLE iceberg_tables, iceberg_namespace_properties")
    acknowledged = {decode_watermark(value).snapshot_id for value in plant.read(topics.WATERMARKS)}
    for config in plant.config.catalogs:
        catalog = open_catalog(config)
        for catalog_name, namespace, name in known:
            if catalog_name == config.name:
                register(catalog, f"{namespace}.{name}", acknowledged=acknowledged)
        catalog.engine.dispose()
    drill.send()
    ingest.start()
    drill.assert_once()


def test_one_stores_metadata_is_lost(plant: Plant, ingest: Service) -> None:
    drill = Drill(plant, ingest, "metadata")
    ingest.start()
    drill.send()
    drill.assert_once()
    ingest.kill()
    config = next(c for c in plant.config.catalogs if c.name == CLICKS.catalog)
    catalog = open_catalog(config)
    io = file_io(catalog)
    where = urlparse(f"{config.warehouse}/{CLICKS.namespace}/{CLICKS.id}")
    store, folder = io.fs_by_scheme(where.scheme, where.netloc), f"{where.netloc}{where.path}/metadata"
    for found in store.get_file_info(FileSelector(folder)):
        store.delete_file(found.path)
    rebuild = Rebuild(catalog, KafkaLog(plant.config.kafka_bootstrap), WallClock(), CLICKS.id)
    try:
        done = rebuild.run(Source.FILES)
    finally:
        rebuild.close()
        catalog.engine.dispose()
    assert done.rows_from_files >= ROWS
    drill.send()
    ingest.start()
    drill.assert_once()


def test_the_log_is_lost(plant: Plant, ingest: Service) -> None:
    drill = Drill(plant, ingest, "log")
    ingest.start()
    drill.send()
    drill.assert_once()
    ingest.kill()
    admin = AdminClient({"bootstrap.servers": plant.config.kafka_bootstrap})
    names = [topic.name for topic in KAFKA_TOPICS]
    for future in admin.delete_topics(names, operation_timeout=DEADLINE_S).values():
        future.result()
    eventually(lambda: not set(names) & set(admin.list_topics(timeout=DEADLINE_S).topics), "the topics are gone")
    plant.log.part.provision(plant.context)
    publish_contracts(plant.config.kafka_bootstrap, CONTRACTS.values(), {})
    drill.send(first=ROWS - 2 * PER_BATCH)  # a device repeats what it was not told of, and some that it was
    ingest.start()
    drill.assert_once()
