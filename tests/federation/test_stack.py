"""SQL and history on the running stack: logins, rights, and right numbers against plain Python over the rows put in."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

import certifi
import httpx
import psycopg
import pyarrow as pa
import pytest
import yaml
from msgspec import Struct
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import NoSuchTableError

from contracts import odcs
from contracts.contract import Contract
from contracts.crm_change import CrmChange, Kind, Version, values
from contracts.errors import FieldlakeError
from federation.config import TrinoConfig
from federation.crm import FORGET_MISSING_SQL
from federation.errors import LoginRefusedError, QueryRefusedError
from federation.queries.canned import everyday_values, load
from federation.trino import TrinoClient
from infra.demo.observers import trino_time
from infra.launcher.endpoints import Endpoints, StoreEndpoint
from lakehouse.mirror.log import publish_changes
from lakehouse.publish import publish_contracts
from lakehouse.schema import table_schema
from tests.waiting import eventually

pytestmark = pytest.mark.stack

WITHIN_S: Final = 60.0  # the ingest makes the tables when it starts; a commit is visible within 2 s
DOCUMENTS: Final = Path(__file__).resolve().parents[2] / "contracts" / "documents"
NOW: Final = datetime.now(UTC).replace(microsecond=0)
CAST_COLUMN: Final = "cast(sealed_at"


class World(Struct, frozen=True):
    """The rows of one test run under names of its own, as plain values."""

    asset: str
    account: str
    people: tuple[str, ...]
    entries: tuple[dict[str, Any], ...]
    clicks: tuple[dict[str, Any], ...]


def contract(name: str) -> Contract:
    return odcs.contract_of(yaml.safe_load((DOCUMENTS / f"{name}.odcs.yaml").read_text(encoding="utf-8")))


def invent(seed: int) -> World:
    """Make rows for one asset and one account of three people, with neighbours that must not be counted."""
    rng, mark = Random(seed), uuid4().hex[:8]
    asset, people = f"asset-{mark}", tuple(f"person-{mark}-{n}" for n in range(3))
    system = {"origin": f"test-{mark}", "epoch": 1, "contract_version": "1.0.0", "sealed_at": NOW}
    entries = [
        {
            **system,
            "seq": n,
            "entry_id": f"{mark}-{n}",
            "asset_id": asset if n % 3 else f"{asset}-beside",
            "kind": "note",
            "work_order_id": "W-1",
            "status": None,
            "part_no": None,
            "note": f"轴承 {n} 'quoted'",
            "technician": "t-1",
            "supersedes": f"{mark}-{rng.randrange(n)}" if n and rng.random() < 0.3 else None,
            "occurred_at": NOW - timedelta(hours=100 - n),
        }
        for n in range(30)
    ]
    clicks = [
        {
            **system,
            "seq": n,
            "user_id": rng.choice([*people, f"stranger-{mark}"]),
            "session_id": "s",
            "event": rng.choice(["view", "download", "print"]),
            "object": "EMC 测试报告",
            "dwell_s": float(n),
            "platform": None,
            "acquisition_channel": None,
            "occurred_at": NOW - timedelta(hours=6 * n),
        }
        for n in range(60)
    ]
    return World(asset, f"ACC-{mark}", people, tuple(entries), tuple(clicks))


def catalog_of(store: StoreEndpoint) -> Catalog:
    return load_catalog(
        store.catalog,
        **{
            "type": "sql",
            "uri": store.catalog_uri,
            "warehouse": store.warehouse,
            "s3.endpoint": store.endpoint_url,
            "s3.region": store.region,
            "s3.access-key-id": store.key_id,
            "s3.secret-access-key": store.secret,
        },
    )


def put(store: StoreEndpoint, name: str, rows: tuple[dict[str, Any], ...]) -> None:
    """Append rows to a contract's table as soon as the ingest has made it."""
    catalog, kind, end_s = catalog_of(store), contract(name), time.monotonic() + WITHIN_S
    while True:
        try:
            catalog.load_table(kind.table).append(pa.Table.from_pylist(list(rows), schema=table_schema(kind)))
            break
        except NoSuchTableError:
            assert time.monotonic() < end_s, f"table {kind.table}: the ingest did not make it within {WITHIN_S} s"
    engine = getattr(catalog, "engine")  # noqa: B009  # the catalog's type does not say that it has one
    engine.dispose()


def trino_config(stack: Endpoints, user: str, password: str) -> TrinoConfig:
    return TrinoConfig(stack.trino.host, stack.trino.port, stack.trino.ca_file, user, password)


@pytest.fixture(scope="module")
def platform(stack: Endpoints) -> Iterator[TrinoClient]:
    with TrinoClient(trino_config(stack, stack.trino.user, stack.trino.password)) as client:
        yield client


@pytest.fixture(scope="module")
def analyst(stack: Endpoints) -> Iterator[TrinoClient]:
    with TrinoClient(trino_config(stack, stack.trino.analyst_user, stack.trino.analyst_password)) as client:
        yield client


@pytest.fixture(scope="module")
def world(stack: Endpoints, platform: TrinoClient) -> Iterator[World]:
    world = invent(seed=20261122)
    needed = ("quarantine", "service_history", "clicks")  # without a quarantine ingest takes nothing
    publish_contracts(stack.kafka.bootstrap, map(contract, needed), {})
    mirrored(stack, world, Kind.CREATED)
    put(stack.store_a, "service_history", world.entries)
    put(stack.store_b, "clicks", world.clicks)
    platform.query(FORGET_MISSING_SQL)
    yield world
    mirrored(stack, world, Kind.DELETED)


def mirrored(stack: Endpoints, world: World, kind: Kind) -> None:
    """Have the world's account and people appear in the CRM, or go, and wait until the mirror shows it."""
    now_ms = time.time_ns() // 1_000_000
    account = {"name": "华东精工", "region": "CN-EAST", "tier": "gold"}
    records = [("accounts", world.account, account)]
    records += [("contacts", person, {"account_id": world.account, "name": "x"}) for person in world.people]
    publish_changes(
        stack.kafka.bootstrap,
        [
            CrmChange(
                "test", "default", name, record, kind, Version(now_ms * 1_000), now_ms,
                values(fields) if kind is Kind.CREATED else {},
            )
            for name, record, fields in records
        ],
    )  # fmt: skip
    count = len(world.people) if kind is Kind.CREATED else 0
    with psycopg.connect(stack.postgres.uri("crm"), autocommit=True) as crm:
        eventually(
            lambda: (
                crm.execute(
                    "SELECT count(customer_id) = %s FROM crm.account_contacts WHERE account_id = %s",
                    (count, world.account),
                ).fetchall()
                == [(True,)]
            ),
            f"the mirror shows {count} people of {world.account}",
        )


def standing_ids(world: World) -> list[str]:
    """Say in plain Python which entries of the asset stand."""
    own = [entry for entry in world.entries if entry["asset_id"] == world.asset]
    hidden = {entry["supersedes"] for entry in own}
    return [entry["entry_id"] for entry in own if entry["entry_id"] not in hidden]


def test_a_password_over_tls_lets_in(platform: TrinoClient) -> None:
    assert platform.query("SELECT 1, '你好'").rows == [(1, "你好")]


def test_a_wrong_password_is_refused(stack: Endpoints) -> None:
    with (
        TrinoClient(trino_config(stack, stack.trino.user, "wrong")) as client,
        pytest.raises(LoginRefusedError, match="refused user 'platform'"),
    ):
        client.query("SELECT 1")


def test_a_certificate_of_another_authority_is_refused(stack: Endpoints) -> None:
    config = TrinoConfig(stack.trino.host, stack.trino.port, certifi.where(), stack.trino.user, stack.trino.password)
    with TrinoClient(config) as client, pytest.raises(LoginRefusedError, match="did not sign"):
        client.query("SELECT 1")


def test_a_wrong_statement_says_where(platform: TrinoClient) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        platform.query("SELECT 1\nFRM x")
    assert (caught.value.name, caught.value.line) == ("SYNTAX_ERROR", 2)


def test_bound_text_stays_text(platform: TrinoClient) -> None:
    text = "'; DROP TABLE x; -- 轴承 ?"
    assert platform.query("SELECT ?, ?", (text, 7)).rows == [(text, 7)]


def test_the_three_source_query_gives_what_plain_python_gives(platform: TrinoClient, world: World) -> None:
    query, at = load("account_situation"), NOW + timedelta(minutes=1)
    values = everyday_values(query, world.asset, world.account, at)
    (found,) = platform.query(query.sql, query.bind(values)).dicts()
    since = values["since"]
    assert isinstance(since, datetime)
    acts = [c for c in world.clicks if c["user_id"] in world.people and c["occurred_at"] >= since]
    assert (found["name"], found["region"], found["tier"]) == ("华东精工", "CN-EAST", "gold")
    assert (found["acts"], found["last_act_at"]) == (len(acts), max(c["occurred_at"] for c in acts))
    assert [act[3] for act in found["recent_acts"]] == sorted(c["dwell_s"] for c in acts)[:20]
    assert [entry[0] for entry in found["entries"]] == standing_ids(world)


def test_a_silent_account_is_still_an_account(platform: TrinoClient, world: World) -> None:
    query = load("account_situation")
    values = everyday_values(query, "asset-of-nobody", world.account, NOW + timedelta(days=3_650))
    (found,) = platform.query(query.sql, query.bind(values)).dicts()
    assert (found["name"], found["acts"], found["recent_acts"], found["entries"]) == ("华东精工", 0, [], [])


def test_the_record_in_sql_as_of_a_time_leaves_out_later_corrections(platform: TrinoClient, world: World) -> None:
    query = load("asset_history")
    as_of = NOW - timedelta(hours=85)
    known = tuple(entry for entry in world.entries if entry["occurred_at"] <= as_of)
    early = World(world.asset, world.account, world.people, known, ())
    (found,) = platform.query(
        query.sql, query.bind({"asset_id": world.asset, "as_of": as_of, "windows_max": 5})
    ).dicts()
    assert [entry[0] for entry in found["entries"]] == standing_ids(early)
    assert found["windows"] == []


def test_the_endpoint_and_sql_tell_the_same_record(stack: Endpoints, world: World) -> None:
    headers, end_s = {"Authorization": f"Bearer {stack.history.token}"}, time.monotonic() + WITHIN_S
    trust = ssl.create_default_context(cafile=stack.history.ca_file)
    with httpx.Client(base_url=stack.history.url, verify=trust, headers=headers, trust_env=False) as client:
        while (answer := client.get(f"/v1/assets/{world.asset}/history")).status_code == 404:
            assert time.monotonic() < end_s, "the endpoint did not follow the commit"
    assert [entry["entry_id"] for entry in answer.json()["entries"]] == standing_ids(world)
    assert "轴承" in answer.json()["entries"][0]["note"]


def test_an_analyst_reads(analyst: TrinoClient, world: World) -> None:
    rows = analyst.query("SELECT count(*) FROM lake_a.field.service_history WHERE asset_id = ?", (world.asset,)).rows
    assert rows == [(sum(entry["asset_id"] == world.asset for entry in world.entries),)]
    assert analyst.query("SELECT tier FROM crm.crm.accounts WHERE account_id = ?", (world.account,)).rows == [("gold",)]


def test_a_moment_is_compared_with_a_column_as_it_is_so_files_are_left_out(analyst: TrinoClient, world: World) -> None:
    """A column that is cast to a finer time first is read from every file."""

    def plan(moment: str) -> str:
        rows = analyst.query(
            f"EXPLAIN SELECT entry_id FROM lake_a.field.service_history WHERE sealed_at >= {moment}"
        ).rows
        return "\n".join(str(line) for (line,) in rows)

    now_us = int(NOW.timestamp()) * 1_000_000
    assert CAST_COLUMN not in plan(trino_time(now_us)).lower()
    assert CAST_COLUMN in plan(f"from_unixtime_nanos({now_us} * 1000)").lower()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM lake_a.field.service_history WHERE asset_id = 'none'",
        "INSERT INTO crm.crm.accounts VALUES ('x', 'x', 'x', 'gold')",
        "CREATE TABLE lake_b.behaviour.mine (a integer)",
        "DROP TABLE lake_b.behaviour.clicks",
        "CREATE SCHEMA lake_a.mine",
        "ALTER TABLE lake_a.field.service_history EXECUTE expire_snapshots",
        "ALTER TABLE lake_b.behaviour.clicks EXECUTE optimize",
        "SET SESSION lake_a.remove_orphan_files_min_retention = '0s'",
        "CALL crm.system.flush_metadata_cache()",
        'SELECT * FROM lake_a.field."service_history$files"',
        "SELECT * FROM system.runtime.queries",
        "SELECT * FROM crm.mirror.accounts",
    ],
)
def test_an_analyst_writes_nothing_and_sees_no_internals(analyst: TrinoClient, world: World, statement: str) -> None:
    with pytest.raises(QueryRefusedError) as caught:
        analyst.query(statement)
    assert caught.value.name == "PERMISSION_DENIED"


def test_errors_of_the_client_are_ours(stack: Endpoints) -> None:
    config = TrinoConfig(stack.trino.host, 1, stack.trino.ca_file, stack.trino.user, stack.trino.password)
    with TrinoClient(config) as client, pytest.raises(FieldlakeError, match="may be starting"):
        client.query("SELECT 1")
