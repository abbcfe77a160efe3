"""Quality and quarantine on the running stack; Trino counts."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pyarrow as pa
import pytest
import yaml
from msgspec.structs import replace

from contracts.contract import Contract
from contracts.odcs import contract_of
from federation.config import TrinoConfig
from federation.errors import QueryRefusedError
from federation.trino import TrinoClient
from infra.cli.main import run
from infra.launcher.endpoints import Endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.parts import services
from lakehouse.catalog import LakeCatalog, open_catalog
from lakehouse.config import CatalogConfig
from lakehouse.data_files import write_rows
from lakehouse.publish import publish_contracts
from lakehouse.quality.config import EngineConfig
from lakehouse.quality.engine import Engine
from lakehouse.quality.expectations import Expectation, of_contract
from lakehouse.quality.whole import evaluate, statements
from lakehouse.schema import wire_schema
from lakehouse.sending import Sender
from lakehouse.tables import CONTRACT_PROPERTY
from tests.lakehouse.frames import CONTRACTS, frame
from tests.lakehouse.naive import EXPECTED, SCHEMA, verdict
from tests.waiting import eventually

pytestmark = pytest.mark.stack

AT_US = 1_760_000_000_000_000


def probe_contract(name: str, maximum: int, version: str) -> Contract:
    """A contract of this run's own, so that nobody else's rows are in its table."""
    document = {
        "apiVersion": "v3.1.0", "kind": "DataContract", "id": name, "name": "Probe", "version": version,
        "status": "active", "description": {"purpose": "Try the quarantine."}, "team": {"name": "tests"},
        "slaProperties": [{"property": "retention", "value": 1, "unit": "d"}],
        "customProperties": [
            {"property": "catalog", "value": "lake_a"}, {"property": "namespace", "value": "field"},
            {"property": "eventTimeField", "value": "at"},
        ],
        "schema": [{"name": name, "properties": [
            {"name": "note", "logicalType": "string", "physicalType": "string", "description": "N.", "required": True,
             "customProperties": [{"property": "fieldId", "value": 1}]},
            {"name": "amount", "logicalType": "number", "physicalType": "double", "description": "A.",
             "logicalTypeOptions": {"maximum": maximum},
             "customProperties": [{"property": "fieldId", "value": 2}]},
            {"name": "at", "logicalType": "timestamp", "physicalType": "timestamptz", "description": "W.",
             "required": True, "customProperties": [{"property": "fieldId", "value": 3}]},
        ]}],
    }  # fmt: skip
    return contract_of(yaml.safe_load(yaml.safe_dump(document)))


@pytest.fixture(scope="module")
def ask(stack: Endpoints) -> Iterator[Any]:
    trino = stack.trino
    with TrinoClient(TrinoConfig(trino.host, trino.port, trino.ca_file, trino.user, trino.password)) as client:
        yield lambda sql: client.query(sql).rows


@pytest.fixture(scope="module")
def sender(stack: Endpoints) -> Sender:
    publish_contracts(stack.kafka.bootstrap, CONTRACTS.values(), {})
    return Sender(stack.kafka.bootstrap)


@pytest.fixture
def lake_a(stack: Endpoints) -> Iterator[LakeCatalog]:
    store = stack.store_a
    config = CatalogConfig("lake_a", store.catalog_uri, store.warehouse, store.endpoint_url, store.key_id, store.secret)
    catalog = open_catalog(config)
    yield catalog
    catalog.engine.dispose()


def counted(ask: Any, sql: str) -> int:
    try:
        return int(ask(sql)[0][0])
    except QueryRefusedError as error:
        if error.name != "TABLE_NOT_FOUND":
            raise
        return -1


def is_there(ask: Any, table: str) -> bool:
    return counted(ask, f"SELECT count(*) FROM {table}") >= 0


def fieldlake(stack: Endpoints, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Run a command; return what it printed as JSON."""
    capsys.readouterr()
    code = run(["quarantine", *words, "--json", "--state-dir", stack.state_dir, "--port-base", str(stack.port_base)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return msgspec.json.decode(printed.out)


def test_refused_rows_go_back_after_a_fix_and_only_once(
    stack: Endpoints, sender: Sender, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"probe_{uuid4().hex[:8]}"
    strict, table = probe_contract(name, 10, "1.0.0"), f"lake_a.field.{name}"
    publish_contracts(stack.kafka.bootstrap, [strict], {})
    eventually(lambda: counted(ask, f"SELECT count(*) FROM {table}") == 0, "the table of the new contract")
    rows = [{"seq": n, "note": "预算紧张 😀", "amount": n + 0.1, "at": AT_US + n} for n in range(40)]
    rows[39] |= {"note": None}
    sender.send([("probe-1", frame(strict, rows))])
    refused = f"SELECT count(*) FROM lake_a.ops.quarantine WHERE contract = '{name}'"
    eventually(lambda: counted(ask, refused) == 30, "30 rows refused")
    found = fieldlake(stack, capsys, "list", "--contract", name)
    assert {(row["rule"], row["refused"], row["open"]) for row in found} == {
        ("amount.maximum", 29, 29),
        ("note.required", 1, 1),
    }
    (entry,) = fieldlake(stack, capsys, "show", "probe-1", "1", "12", "--contract", name)
    assert (entry["rule"], entry["today"]) == ("amount.maximum", "still refused: amount.maximum")

    publish_contracts(stack.kafka.bootstrap, [probe_contract(name, 100, "1.0.1")], {})
    before = fieldlake(stack, capsys, "replay", "--contract", name, "--dry-run")
    assert (before["open"], before["can_go_back"], before["still"]) == (30, 29, {"note.required": 1})
    done = fieldlake(stack, capsys, "replay", "--contract", name)
    assert (done["can_go_back"], done["back"]) == (29, 29)
    again = fieldlake(stack, capsys, "replay", "--contract", name)
    assert (again["open"], again["can_go_back"]) == (1, 0)
    kept = f"SELECT count(*), count(DISTINCT seq), max(amount), count_if(contract_version = '1.0.1') FROM {table}"
    assert ask(kept) == [(39, 39, 38.1, 29)]
    assert counted(ask, refused) == 30
    trail = Path(stack.state_dir, "audit.jsonl").read_text().splitlines()
    written = [line for line in map(msgspec.json.decode, trail) if line["filters"]["contract"] == name]
    assert [(line["what"], line["rows"]) for line in written] == [
        ("quarantine replay begins", 29),
        ("quarantine replay ends", 29),
    ]


def test_a_replay_that_was_sent_twice_puts_every_row_back_once(stack: Endpoints, sender: Sender, ask: Any) -> None:
    """What two operators at once, or one who was interrupted, put on the log."""
    from lakehouse.publish import published_versions
    from lakehouse.replays import Entry, put_back

    name = f"probe_{uuid4().hex[:8]}"
    strict, table = probe_contract(name, 10, "1.0.0"), f"lake_a.field.{name}"
    publish_contracts(stack.kafka.bootstrap, [strict, probe_contract(name, 100, "1.0.1")], {})
    eventually(lambda: counted(ask, f"SELECT count(*) FROM {table}") == 0, "the table of the new contract")
    versions = published_versions(stack.kafka.bootstrap)[name]
    assert [one.version for one in versions] == ["1.0.0", "1.0.1"]
    entries = [
        Entry(name, "1.0.0", "probe-2", 1, n, "lake", "amount.maximum",
              msgspec.json.encode({"seq": n, "note": "n", "amount": 11.5, "at": AT_US}).decode(), 1_760_000_000_000)
        for n in range(0, 60, 2)
    ]  # fmt: skip
    answers = [put_back(entry, versions).batch for entry in entries]
    for part in (answers[:20], answers, answers[5:]):
        sender.send([("probe-2", batch) for batch in part if batch is not None])
    sender.send([("probe-2", frame(versions[-1], [{"seq": 1, "note": "end", "amount": 1.0, "at": AT_US}]))])
    eventually(lambda: counted(ask, f"SELECT count(*) FROM {table} WHERE note = 'end'") == 1, "what was sent last")
    eventually(lambda: counted(ask, f"SELECT count(*) FROM {table}") == 31, "every row")
    assert counted(ask, f"SELECT count(DISTINCT seq) FROM {table}") == 31


def test_the_quality_process_finds_a_planted_fault_and_follows_an_analysts_file(
    stack: Endpoints, sender: Sender, ask: Any, lake_a: LakeCatalog
) -> None:
    name = f"probe_{uuid4().hex[:8]}"
    contract, table = probe_contract(name, 10, "1.0.0"), f"lake_a.field.{name}"
    folder = services.expectations_dir(Launcher(stack.settings()).context())
    file = folder / f"{name}.yaml"
    rule = "{type: expect_column_values_to_be_in_set, kwargs: {column: note, value_set: [需要]}, meta: {name: wanted}}"
    publish_contracts(stack.kafka.bootstrap, [contract], {})
    eventually(lambda: counted(ask, f"SELECT count(*) FROM {table}") == 0, "the table of the new contract")
    sender.send(
        [("probe-3", frame(contract, [{"seq": n, "note": "需要", "amount": 1.0, "at": AT_US} for n in range(9)]))]
    )
    looks = f"SELECT count(*) FROM lake_a.ops.data_quality WHERE contract = '{name}'"
    eventually(lambda: counted(ask, f"{looks} AND rule = '*' AND met AND scope = 'committed'") > 0, "a sound look")
    try:
        file.write_text(f"contract: {name}\nexpectations:\n  - {rule}\n", encoding="utf-8")
        sender.send([("probe-3", frame(contract, [{"seq": 9, "note": "别的", "amount": 1.0, "at": AT_US}]))])
        eventually(lambda: counted(ask, f"{looks} AND rule = 'wanted' AND NOT met") > 0, "the analyst's rule")
        plant(lake_a, contract, 99.0)
        eventually(lambda: counted(ask, f"{looks} AND rule = 'amount.range' AND NOT met") > 0, "the planted fault")
    finally:
        file.unlink(missing_ok=True)
    page = services.report_dir(Launcher(stack.settings()).context()) / f"{table}.html"
    assert "amount.range" in page.read_text(encoding="utf-8")


def plant(catalog: LakeCatalog, contract: Contract, amount: float) -> None:
    """Commit a row past every check, as a broken writer would."""
    table = catalog.load_table(contract.table)
    one = table.scan(limit=1).to_arrow().slice(0, 1)
    columns = {"seq": pa.array([999_999], pa.int64()), "amount": pa.array([amount], pa.float64())}
    for column, values in columns.items():
        at = one.column_names.index(column)
        one = one.set_column(at, one.schema.field(at), [values])
    until_s = time.monotonic() + 60
    for file in write_rows(table, one):
        while True:
            try:
                table.refresh()
                with table.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
                    producer.append_data_file(file)
                return
            except Exception:
                if time.monotonic() > until_s:
                    raise


def test_trino_answers_like_looking_at_each_row(stack: Endpoints, ask: Any, lake_a: LakeCatalog) -> None:
    """Every kind of question in our own SQL, over values that SQL is known to treat in its own way."""
    name = f"asked_{uuid4().hex[:8]}"
    texts = [None, "a", "需要", "it's", "A1", "A1\n", "", "B٣", "a", "Z009"]
    numbers = [None, float("nan"), float("inf"), float("-inf"), -0.0, 0.25, 1.0, 1.5, -1.0, 0.1]
    at = pa.array([AT_US + n * 1_000_000 for n in range(-5, 5)], pa.timestamp("us", "UTC"))
    rows = pa.table(
        [
            pa.array(["d"] * 10), pa.array([1] * 10), pa.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), at,
            pa.array(texts), pa.array([None, *range(-3, 6)], pa.int32()),
            pa.array([2**63 - 1, 2**63 - 1, 2**63 - 2, None, 1, 2, 3, 4, 5, 6]),
            pa.array(numbers, pa.float32()), pa.array(numbers, pa.float64()),
            pa.array([AT_US] * 9 + [None], pa.timestamp("us", "UTC")), pa.array([True, None] * 5),
        ],
        schema=SCHEMA,
    )  # fmt: skip
    lake_a.create_namespace_if_not_exists("field")
    table = lake_a.create_table(f"field.{name}", schema=SCHEMA)
    assert CONTRACT_PROPERTY not in table.properties  # nobody else looks after it
    try:
        table.append(rows)
        trino = stack.trino
        engine = Engine(EngineConfig(trino.host, trino.port, trino.ca_file, trino.user, trino.password))
        asked = statements(f"lake_a.field.{name}", EXPECTED)
        found = {o.expectation.rule: o for one in asked for o in evaluate(one, engine.row(one.sql))}
        for one in EXPECTED:
            expected = verdict(one, rows.to_pylist())
            assert (found[one.rule].failed, found[one.rule].met) == (expected.failed, expected.met), one.text
    finally:
        lake_a.drop_table(f"field.{name}")


def test_every_contracts_rules_can_be_asked_of_its_whole_table(stack: Endpoints, sender: Sender, ask: Any) -> None:
    trino = stack.trino
    engine = Engine(EngineConfig(trino.host, trino.port, trino.ca_file, trino.user, trino.password))
    visits = CONTRACTS["visits"]
    related = replace(visits.field("account_id").checks, reference="purchases.customer_id")
    fields = tuple(replace(f, checks=related) if f.name == "account_id" else f for f in visits.fields)
    wanted = {**CONTRACTS, "visits": replace(visits, fields=fields)}
    for contract in wanted.values():
        table = f"{contract.catalog}.{contract.table}"
        eventually(partial(is_there, ask, table), table)
        expected: tuple[Expectation, ...] = of_contract(contract, wanted)
        outcomes = [o for one in statements(table, expected) for o in evaluate(one, engine.row(one.sql))]
        assert len(outcomes) == len(expected)
    assert wire_schema(visits).names[0] == "seq"
