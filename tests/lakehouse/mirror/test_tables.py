"""Both implementations of the tables behave alike, and PostgreSQL shows readers what the record says."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.crm_change import CrmMessage, Kind, Snapshot, SnapshotEnd
from lakehouse.errors import StoreUnavailableError, ValueRefusedError
from lakehouse.mirror import tables
from lakehouse.mirror.kinds import ACCOUNTS, KINDS, RecordKind
from lakehouse.mirror.model import UNKNOWN, Scope
from lakehouse.mirror.ports import MirrorStore, Step
from lakehouse.mirror.postgres import PostgresMirror
from tests.contracts.test_crm_change import JSON
from tests.lakehouse.mirror.conftest import Database
from tests.lakehouse.mirror.memory import MemoryMirror, Topic
from tests.lakehouse.mirror.messages import (
    OBJECT,
    RECORDS,
    SYSTEM,
    TENANT,
    change,
    expected,
    histories,
    key,
    merged,
    seen,
)
from tests.lakehouse.mirror.world import CrashError, DieAt, drain, mirror_over, shuffled_in

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANY_FIELD = sorted({name for kind in KINDS for column in kind.columns for name in column.fields} | {"Neu__c"})
ALL_TABLES = [f"mirror.{kind.table}" for kind in KINDS] + [f"mirror.{n}" for n in ("positions", "snapshots", "marks")]


@pytest.fixture
def admin(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.stack)])
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[[], MirrorStore]]:
    """Makes a store without anything in it."""
    if request.param == "memory":
        yield MemoryMirror
        return
    database: Database = request.getfixturevalue("database")
    connection: psycopg.Connection[Any] = request.getfixturevalue("admin")
    store = PostgresMirror(database.config)

    def emptied() -> MirrorStore:
        connection.execute(f"TRUNCATE {', '.join(ALL_TABLES)}".encode())
        return store

    yield emptied
    store.close()


@given(histories(), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_order_gives_what_the_history_says(
    fresh: Callable[[], MirrorStore], history: list[CrmMessage], batch: int, rng: Random
) -> None:
    store, topic = fresh(), Topic()
    shuffled_in(topic, history, rng)
    drain(mirror_over(topic, store, batch_max=batch))
    with store.transaction() as transaction:
        found = transaction.read(ACCOUNTS, [key(record) for record in RECORDS])
    assert {key: seen(record) for key, record in found.items()} == expected(history)


@pytest.mark.parametrize("step", Step)
def test_a_crash_after_any_step_leaves_all_of_a_batch_or_nothing(fresh: Callable[[], MirrorStore], step: Step) -> None:
    store, topic = fresh(), Topic()
    snapshot = Snapshot("s", 50)
    history: list[CrmMessage] = [
        change(RECORDS[0], Kind.CREATED, 1, fields={"Name": "华东精工"}),
        change(RECORDS[1], Kind.UPDATED, 2, full=True, snapshot=snapshot),
        SnapshotEnd(SYSTEM, TENANT, OBJECT, snapshot, 1),
        change(RECORDS[2], Kind.GAP, 60),
    ]
    for message in history:
        topic.put(message, 0)
    with pytest.raises(CrashError):
        drain(mirror_over(topic, store, DieAt(step), batch_max=2))
    with store.transaction() as transaction:
        found = transaction.read(ACCOUNTS, [key(record) for record in RECORDS])
        landed = transaction.positions(topic.identity)
    assert (len(found), landed) == ((2, {0: 2}) if step is Step.COMMITTED else (0, {}))
    drain(mirror_over(topic, store, batch_max=2))
    with store.transaction() as transaction:
        found = transaction.read(ACCOUNTS, [key(record) for record in RECORDS])
    assert {key: seen(record) for key, record in found.items()} == expected(history)


def test_nothing_of_a_transaction_that_ends_with_an_error_is_there(fresh: Callable[[], MirrorStore]) -> None:
    store = fresh()
    record = merged([change("1", Kind.CREATED, 1)])

    def write_and_fail() -> None:
        with store.transaction() as transaction:
            transaction.write(ACCOUNTS, {key("1"): record})
            transaction.move("topic", {0: 5})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with store.transaction() as transaction:
        assert transaction.read(ACCOUNTS, [key("1")]) == {}
        assert transaction.positions("topic") == {}


def test_positions_are_those_of_one_topic(fresh: Callable[[], MirrorStore]) -> None:
    store = fresh()
    with store.transaction() as transaction:
        transaction.move("one", {0: 1, 1: 2})
        transaction.move("one", {1: 3})
        transaction.move("two", {0: 9})
    with store.transaction() as transaction:
        assert transaction.positions("one") == {0: 1, 1: 3}


def test_a_snapshot_is_complete_when_each_of_its_records_was_there_once(fresh: Callable[[], MirrorStore]) -> None:
    store, topic = fresh(), Topic()
    snapshot = Snapshot("s", 50)
    held = [change(r, Kind.UPDATED, 1, full=True, snapshot=snapshot) for r in RECORDS[:2]]
    for message in (
        SnapshotEnd(SYSTEM, TENANT, OBJECT, snapshot, 2),
        held[0],
        held[0],
        change(RECORDS[2], Kind.GAP, 2),
    ):
        topic.put(message)
    drain(mirror_over(topic, store))
    with store.transaction() as transaction:
        assert transaction.swept() == {}
    topic.put(held[1])
    drain(mirror_over(topic, store))
    with store.transaction() as transaction:
        assert transaction.swept() == {Scope(SYSTEM, TENANT, OBJECT): 50}
        assert transaction.read(ACCOUNTS, [key(RECORDS[2])])[key(RECORDS[2])].deleted_us == 50


@pytest.mark.parametrize("value", [b'"\\ud800"', b'{"a":' * 40 + b'"\\ud800"' + b"}" * 40], ids=["half", "deep"])
def test_a_value_that_cannot_be_stored_is_refused(fresh: Callable[[], MirrorStore], value: bytes) -> None:
    store = fresh()
    one = msgspec.structs.replace(change("1", Kind.CREATED, 1), fields={"New__c": msgspec.Raw(value)})
    with pytest.raises(ValueRefusedError), store.transaction() as transaction:
        transaction.write(ACCOUNTS, {key("1"): merged([one])})
    with store.transaction() as transaction:
        transaction.write(ACCOUNTS, {key("2"): merged([change("2", Kind.CREATED, 1)])})


@pytest.mark.stack
def test_readers_see_typed_columns_and_the_rest_in_extra(database: Database, admin: psycopg.Connection[Any]) -> None:
    store, topic = PostgresMirror(database.config), Topic()
    topic.identity = "shown"
    told = {
        "name": "华东\t精工\\N\nGmbH",
        "AnnualRevenue": msgspec.Raw(b"12345678901234567890.05"),
        "NumberOfEmployees": "not a number",
        "Owner": {"id": "42", "name": "张伟"},
        "Neu__c": [1, {"é": None}],
        "Phone": None,
    }
    topic.put(change("A-1", Kind.CREATED, 5_000_000_123, fields=told, system="shown"))
    topic.put(change("A-2", Kind.CREATED, 2, system="shown"))
    topic.put(change("A-2", Kind.DELETED, 3, system="shown"))
    topic.put(change("Z", Kind.GAP, 4, system="shown", object="Thing__c"))
    drain(mirror_over(topic, store))
    row = admin.execute(
        "SELECT account_id, name, annual_revenue, employees, owner_id, phone, extra, changed_at, cause "
        "FROM crm.accounts WHERE system = 'shown'"
    ).fetchall()
    changed_at = EPOCH + timedelta(microseconds=5_000_000_123)
    assert [tuple(map(str, one)) for one in row] == [
        (
            "A-1", "华东\t精工\\N\nGmbH", "12345678901234567890.0500000000", "None", "42", "None",
            str({"Neu__c": [1, {"é": None}], "NumberOfEmployees": "not a number"}), str(changed_at), "{}",
        )
    ]  # fmt: skip
    hidden = "SELECT deleted_at, told_deleted FROM mirror.accounts WHERE system = 'shown' AND record_id = 'A-2'"
    assert admin.execute(hidden.encode()).fetchall() == [(EPOCH + timedelta(microseconds=3), True)]
    stale = "SELECT stale_since FROM crm.records WHERE object = 'Thing__c'"
    assert admin.execute(stale.encode()).fetchall() == [(EPOCH + timedelta(microseconds=4),)]
    store.close()


@pytest.mark.stack
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(ANY_FIELD), JSON)), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_database_takes_every_value_that_a_change_may_hold(
    database: Database, told: list[tuple[RecordKind, dict[str, Any]]]
) -> None:
    store = PostgresMirror(database.config)
    try:
        for number, (kind, fields) in enumerate(told):
            record = merged([change(f"{number}", Kind.CREATED, 1, fields=fields)])
            with store.transaction() as transaction:
                transaction.write(kind, {key(f"{number}"): record})
                assert transaction.read(kind, [key(f"{number}")]) == {key(f"{number}"): record}
    finally:
        store.close()


@pytest.mark.stack
def test_the_mirrors_role_writes_its_tables_and_nothing_else(database: Database) -> None:
    own = database.config
    login = f"host={own.host} port={own.port} user={own.user} password={own.password}"
    with psycopg.connect(f"{login} dbname=crm", autocommit=True) as connection:
        for statement in (
            "CREATE TABLE mirror.mine (a integer)",
            "CREATE TABLE crm.mine (a integer)",
            "DROP TABLE mirror.accounts",
            "SELECT * FROM crm.accounts",
            "SELECT * FROM pg_authid",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    for other in ("lake", "postgres"):
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(f"{login} dbname={other}")


@pytest.mark.stack
def test_a_sweep_looks_at_each_record_once(database: Database, admin: psycopg.Connection[Any]) -> None:
    values = {"system": SYSTEM, "tenant": TENANT, "object": OBJECT, "at_us": 5, "at": EPOCH}
    for kind in KINDS:
        plan = admin.execute(f"EXPLAIN {tables.sweep(kind)}".encode(), values).fetchall()
        text = "\n".join(row[0] for row in plan)
        assert "Scan" in text
        assert not any(word in text for word in ("Nested Loop", "Join", "SubPlan")), text


@pytest.mark.stack
def test_making_the_tables_again_keeps_their_rows(database: Database, admin: psycopg.Connection[Any]) -> None:
    store = PostgresMirror(database.config)
    with store.transaction() as transaction:
        transaction.write(ACCOUNTS, {key("kept"): merged([change("kept", Kind.CREATED, 1)])})
    store.close()
    admin.execute("ALTER TABLE mirror.accounts DROP COLUMN industry CASCADE")
    database.daemon.part.provision(database.context)
    assert admin.execute("SELECT count(*) FROM crm.accounts WHERE record_id = 'kept' AND industry IS NULL").fetchone()
    with store.transaction() as transaction:
        assert transaction.read(ACCOUNTS, [key("kept")])[key("kept")] != UNKNOWN
    store.close()


@pytest.mark.stack
def test_a_server_that_is_away_is_waited_for(database: Database) -> None:
    store = PostgresMirror(database.config)
    with store.transaction() as transaction:
        before = transaction.positions("topic")
    database.daemon.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="PostgreSQL at"), store.transaction() as transaction:
            transaction.positions("topic")
    database.daemon.start()
    with store.transaction() as transaction:
        assert transaction.positions("topic") == before
    store.close()


def test_every_table_has_a_column_once() -> None:
    for kind in KINDS:
        columns = tables.columns_of(kind)
        assert len(set(columns)) == len(columns), kind.table
        assert set(kind.indexed) <= set(columns)
    objects = [name for kind in KINDS for name in kind.objects]
    assert len(set(objects)) == len(objects)
    assert objects == [name.lower() for name in objects]
