"""The mirror as a process over a real log and database: kills, outages, and what Trino reads from it."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import psycopg
import pytest

from contracts import dead
from contracts.crm_change import CrmChange, Kind, Snapshot, SnapshotEnd, Version, values
from contracts.topics import CRM_CHANGES, DEAD
from federation.config import TrinoConfig
from federation.crm import FORGET_MISSING_SQL
from federation.trino import TrinoClient
from infra.cli.main import run
from infra.launcher.endpoints import Endpoints, endpoints_of
from infra.launcher.parts import postgres, services
from infra.provision import seed_crm
from lakehouse.mirror.log import publish_changes
from lakehouse.mirror.status import MirrorStatus
from tests.lakehouse.plant import Plant
from tests.processes import OwnProcess
from tests.waiting import eventually

pytestmark = pytest.mark.stack

RECORDS = 400
LIVES = 5


def told(system: str, record: str, kind: Kind, number: int, **fields: object) -> CrmChange:
    now_ms = time.time_ns() // 1_000_000
    return CrmChange(
        system, "t", "Contact", record, kind, Version(now_ms * 1_000, number), now_ms, values(dict(fields))
    )


@pytest.fixture
def mirror(plant: Plant, tmp_path: Path) -> Iterator[OwnProcess[MirrorStatus]]:
    """A mirror process that is not started yet."""
    config = msgspec.structs.replace(services.mirror_config(plant.context), batch_changes_max=50)
    decode = msgspec.json.Decoder(MirrorStatus).decode
    process = OwnProcess("lakehouse.mirror", tmp_path, msgspec.json.encode(config), decode)
    yield process
    process.stop()


def names(plant: Plant, system: str) -> dict[str, str]:
    with psycopg.connect(postgres.connection_string(plant.context, "crm")) as connection:
        query = "SELECT record_id, last_name FROM crm.contacts WHERE system = %s"
        return dict(connection.execute(query, (system,)).fetchall())


def test_killing_the_mirror_again_and_again_loses_and_revives_nothing(
    plant: Plant, mirror: OwnProcess[MirrorStatus]
) -> None:
    expected: dict[str, str] = {}
    for life in range(LIVES):
        mirror.start(until_ready=life == 0)
        changes = []
        for number in range(RECORDS):
            record, name = f"r{number}", f"名 {life}"
            gone = (number + life) % 7 == 0
            changes.append(told("killed", record, Kind.CREATED, life * 2, LastName=name))
            expected[record] = name
            if gone:
                changes.append(told("killed", record, Kind.DELETED, life * 2 + 1))
                del expected[record]
        publish_changes(plant.config.kafka_bootstrap, changes)
        if life % 2:
            eventually(lambda: names(plant, "killed"), "some records are there")
        mirror.kill()
    mirror.start()
    eventually(lambda: names(plant, "killed") == expected, "the mirror shows what was told last")
    assert mirror.stop() == 0


def test_an_outage_is_named_and_waited_out(plant: Plant, mirror: OwnProcess[MirrorStatus]) -> None:
    mirror.start()
    for number, daemon in enumerate((plant.database, plant.log)):
        waits_for = "database" if daemon is plant.database else "log"
        daemon.kill()
        if daemon is plant.database:
            publish_changes(plant.config.kafka_bootstrap, [told("outage", f"r{number}", Kind.CREATED, 0, LastName="x")])
            mirror.await_status(lambda s: s.waiting_for == "database" and not s.ready, "the outage is named")
            assert not mirror.ready_file.exists()
        daemon.start()
        publish_changes(plant.config.kafka_bootstrap, [told("outage", f"s{number}", Kind.CREATED, 0, LastName="y")])
        told_after = f"s{number}"
        eventually(partial(_is_there, plant, told_after), f"changes after an outage of the {waits_for}")
    assert set(names(plant, "outage")) == {"r0", "s0", "s1"}
    mirror.await_status(lambda s: s.ready and s.waiting_for == "", "nothing is waited for")


def _is_there(plant: Plant, record: str) -> bool:
    return record in names(plant, "outage")


def test_what_cannot_be_followed_is_in_the_dead_letters(plant: Plant, mirror: OwnProcess[MirrorStatus]) -> None:
    mirror.start()
    plant.producer.produce(CRM_CHANGES, b'{"type": "change"}', b"bad")
    assert plant.producer.flush(10) == 0
    half = told("refused", "half", Kind.CREATED, 0)
    half = msgspec.structs.replace(half, fields={"Neu__c": msgspec.Raw(b"1e999999")})
    publish_changes(plant.config.kafka_bootstrap, [half, told("refused", "whole", Kind.CREATED, 0, LastName="李")])
    eventually(lambda: names(plant, "refused") == {"whole": "李"}, "the change beside it is there")
    letters = [dead.decode(letter) for letter in plant.read(DEAD)]
    reasons = {one.reason for one in letters if one.source.startswith(f"{CRM_CHANGES}/")}
    assert reasons == {"malformed", "refused_by_database"}
    found = mirror.await_status(lambda s: sum(s.dead.values()) == 2, "both are counted")
    assert found.dead == {"malformed": 1, "refused_by_database": 1}


def test_trino_reads_what_was_put_on_the_log(stack: Endpoints, capsys: pytest.CaptureFixture[str]) -> None:
    system, now_us = f"trino-{time.time_ns()}", time.time_ns() // 1_000
    snapshot = Snapshot("whole", now_us)

    def record(name: str, **fields: object) -> CrmChange:
        return CrmChange(
            system, "t", "Account", name, Kind.UPDATED, Version(now_us), now_us // 1_000, values(dict(fields)),
            full=True, snapshot=snapshot,
        )  # fmt: skip

    gone = CrmChange(system, "t", "Account", "gone", Kind.CREATED, Version(now_us - 1), now_us // 1_000)
    publish_changes(
        stack.kafka.bootstrap,
        [
            gone,
            record("a", Name="华东精工", AnnualRevenue=1.25, Neu__c={"等级": 3}),
            record("b", Name="Isar Metall"),
            SnapshotEnd(system, "t", "Account", snapshot, 2),
        ],
    )
    query = (
        "SELECT account_id, name, annual_revenue, json_extract_scalar(extra, '$.Neu__c.等级') "
        "FROM crm.crm.accounts WHERE system = ? ORDER BY account_id"
    )
    config = TrinoConfig(
        stack.trino.host, stack.trino.port, stack.trino.ca_file, stack.trino.user, stack.trino.password
    )
    with TrinoClient(config) as client:
        client.query(FORGET_MISSING_SQL)
        rows = eventually(
            lambda: found if len(found := client.query(query, (system,)).rows) == 2 else None, "both accounts are there"
        )
        held = client.query("SELECT count(*) FROM crm.mirror.accounts WHERE system = ?", (system,)).rows
    assert held == [(3,)]
    assert [(row[0], row[1], None if row[2] is None else float(row[2]), row[3]) for row in rows] == [
        ("a", "华东精工", 1.25, "3"),
        ("b", "Isar Metall", None, None),
    ]
    assert run(["crm", "mirror", "--json", "--state-dir", stack.state_dir]) == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    (own,) = [row for row in shown["objects"] if row["system"] == system]
    assert (own["kept_in"], own["live"], own["deleted"], own["stale"]) == ("accounts", 2, 1, 0)
    assert shown["process"]["ready"]
    assert [row for row in shown["open_snapshots"] if row["system"] == system] == []
    assert run(["crm", "mirror", "--state-dir", stack.state_dir]) == 0
    assert f"{system}/t/Account in accounts: 2 records, 1 deleted, 0 stale" in capsys.readouterr().out


def test_seeding_again_replaces_what_was_seeded(plant: Plant, mirror: OwnProcess[MirrorStatus], tmp_path: Path) -> None:
    endpoints = endpoints_of(plant.context)
    mirror.start()

    def seeded(accounts: tuple[str, ...]) -> list[tuple[str, int]]:
        rows = "".join(f"{name},华东 {name},CN-EAST,gold\n" for name in accounts)
        (tmp_path / "accounts.csv").write_text(f"account_id,name,region,tier\n{rows}", encoding="utf-8")
        (tmp_path / "assets.csv").write_text("asset_id,account_id,model,installed_on\nM-1,A-1,PX-160,2020-02-29\n")
        (tmp_path / "contacts.csv").write_text("customer_id,account_id,name\nC-1,A-1,x\nC-2,A-1,y\n")
        seed_crm(endpoints, tmp_path)
        with psycopg.connect(endpoints.postgres.uri("crm")) as connection:
            query = (
                "SELECT account_id, count(customer_id) FROM crm.account_contacts WHERE account_id LIKE 'A-%' GROUP BY 1"
            )
            return sorted(connection.execute(query).fetchall())

    assert seeded(("A-1", "A-2")) == [("A-1", 2), ("A-2", 0)]
    assert seeded(("A-1",)) == [("A-1", 2)]
    with psycopg.connect(endpoints.postgres.uri("crm")) as connection:
        row = connection.execute("SELECT asset_id, model, installed_on::text FROM crm.assets WHERE asset_id = 'M-1'")
        assert row.fetchall() == [("M-1", "PX-160", "2020-02-29")]
