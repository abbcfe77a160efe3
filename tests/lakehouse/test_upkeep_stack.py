"""Rows move to the history while ingest goes on, and Trino and DuckDB find the same in both parts of the table."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts import topics
from federation.config import TrinoConfig
from federation.trino import TrinoClient
from infra.launcher.endpoints import Endpoints, StoreEndpoint
from lakehouse.catalog import open_catalog
from lakehouse.config import CatalogConfig, LakeConfig
from lakehouse.history import ensure_history
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact, figures
from lakehouse.maintenance.erasure import erase, tables_of
from lakehouse.maintenance.subjects import Subject
from lakehouse.process import WallClock
from lakehouse.publish import publish_contracts
from tests.lakehouse import judge
from tests.lakehouse.frames import CONTRACTS, frame, telemetry
from tests.waiting import eventually

pytestmark = pytest.mark.stack

TELEMETRY = CONTRACTS["telemetry"]
ORIGIN = "upkeep-1"
BATCHES, ROWS = 1_000, 50  # more than are needed
FLUSHES = 6


@pytest.fixture(scope="module")
def config(stack: Endpoints) -> LakeConfig:
    """The lake of the running stack, with the shipped contracts published."""
    publish_contracts(stack.kafka.bootstrap, CONTRACTS.values(), {})
    return LakeConfig(stack.kafka.bootstrap, (_catalog(stack.store_a), _catalog(stack.store_b)))


def _catalog(store: StoreEndpoint) -> CatalogConfig:
    return CatalogConfig(
        store.catalog, store.catalog_uri, store.warehouse, store.endpoint_url, store.key_id, store.secret, store.region
    )


@pytest.fixture
def engine(stack: Endpoints) -> Iterator[TrinoClient]:
    """Trino as an analyst."""
    trino = stack.trino
    client = TrinoClient(TrinoConfig(trino.host, trino.port, trino.ca_file, trino.analyst_user, trino.analyst_password))
    yield client
    client.close()


def send(bootstrap: str, stop: threading.Event) -> None:
    """Batches in order, as a gateway writes them, some a second."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for n in range(BATCHES):
        rows = telemetry(range(n * ROWS, (n + 1) * ROWS))
        producer.produce(
            topics.BATCHES, frame(TELEMETRY, rows), ORIGIN, headers=[(topics.ORIGIN_HEADER, ORIGIN.encode())]
        )
        producer.flush()
        if stop.wait(0.1):
            return


def test_trino_and_duckdb_agree_while_rows_move_and_arrive(
    config: LakeConfig, engine: TrinoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)
    # However fast the machine is: what is worth a merge is worth the move, and two files are.
    monkeypatch.setattr(merging, "MERGE_FILES_MIN", merging.QUIET_FILES_MIN)
    catalog = open_catalog(config.catalogs[0])
    stop = threading.Event()
    sender = threading.Thread(target=send, args=(config.kafka_bootstrap, stop))

    def highest() -> int:
        found = judge.read(config, TELEMETRY, f"SELECT coalesce(max(seq), -1) FROM rows WHERE origin = '{ORIGIN}'")
        return int(found[0][0])

    def grown(seen: int) -> bool:
        return highest() > seen

    eventually(lambda: catalog.table_exists(TELEMETRY.table) or None, "ingest has made the table")
    sender.start()
    try:
        table = catalog.load_table(TELEMETRY.table)
        flushed = conflicts = 0
        while flushed < FLUSHES:
            eventually(partial(grown, highest()), "ingest has added rows")
            table.refresh()
            ensure_history(table)
            merged = compact(table, quiet=True)
            flushed += merged.files > 0
            conflicts += merged.conflicts
            _compare(config, engine, highest())
    finally:
        stop.set()
        sender.join()
    table.refresh()
    assert figures(table).history_files > 0
    assert len(table.metadata.partition_specs) == 2
    catalog.engine.dispose()


def _compare(config: LakeConfig, engine: TrinoClient, upto: int) -> None:
    """Both engines say of all rows up to a sequence number, and of one subject's, what was sent."""
    sent = telemetry(range(upto + 1))
    mine = [row for row in sent if row["asset_id"] == "asset-3"]
    for rows, subject in ((sent, ""), (mine, "AND asset_id = 'asset-3'")):
        expected: tuple[Any, ...] = (
            len(rows),
            len(rows),
            sum(row["seq"] for row in rows),
            sum(row["f3"] for row in rows),
        )
        query = "SELECT count(*), count(DISTINCT seq), coalesce(sum(seq), 0), coalesce(sum(f3), 0) FROM {} " + (
            f"WHERE origin = '{ORIGIN}' AND seq <= {upto} {subject}"
        )
        assert judge.read(config, TELEMETRY, query.format("rows")) == [expected]
        assert [tuple(r) for r in engine.query(query.format("lake_a.field.telemetry")).rows] == [expected]


def test_a_subject_is_erased_from_the_running_stack(config: LakeConfig, engine: TrinoClient) -> None:
    catalog = open_catalog(config.catalogs[0])
    own = f"origin = '{ORIGIN}'"
    ((upto,),) = judge.read(config, TELEMETRY, f"SELECT max(seq) FROM rows WHERE {own}")  # ingest may still be at it
    count = f"SELECT count(*) FROM {{}} WHERE {own} AND seq <= {upto} AND asset_id {{}} 'asset-3'"
    others = judge.read(config, TELEMETRY, count.format("rows", "<>"))
    ((table, rule),) = tables_of(catalog, Subject("asset", "asset-3"), TELEMETRY.table)
    done = erase(catalog, table, rule, "test", WallClock())
    assert done.rows > 0
    assert done.remaining == ()
    for operator, expected in (("=", 0), ("<>", others[0][0])):
        assert judge.read(config, TELEMETRY, count.format("rows", operator)) == [(expected,)]
        assert engine.query(count.format("lake_a.field.telemetry", operator)).rows == [(expected,)]
    noted = engine.query("SELECT finished, rows, verified FROM lake_a.ops.removals ORDER BY finished").rows
    assert noted == [(False, 0, False), (True, done.rows, done.verified)]
    catalog.engine.dispose()
