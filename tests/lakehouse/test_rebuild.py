"""A table rebuilt from its log, its files or both: the same rows, readers see one or the other, ingest goes on."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pyiceberg.catalog.sql import SqlCatalog

from contracts import ranges
from contracts.contract import Checks, Field, FieldType
from contracts.decisions import encode as encode_decision
from contracts.topics import BATCHES, DECISIONS
from lakehouse import swap
from lakehouse.catalog import LakeCatalog, open_catalog
from lakehouse.errors import (
    BrokenTableError,
    CommitConflictError,
    TableConflictError,
    UnsupportedTableError,
)
from lakehouse.maintenance.erasure import erase, tables_of
from lakehouse.maintenance.subjects import Subject
from lakehouse.rebuild import SUFFIX, Rebuild, Rebuilt, Source
from lakehouse.register import register
from lakehouse.replays import Entry, put_back
from lakehouse.salvage import outside, runs
from tests.lakehouse.frames import CONTRACTS, decision, frame, telemetry
from tests.lakehouse.memory import MemoryLog
from tests.lakehouse.world import World, catalogs

TELEMETRY = CONTRACTS["telemetry"]
BATCHES_SENT, ROWS = 24, 25


def folder(world: World) -> Path:
    return world.folder / "lake_a" / "field" / "telemetry"


def filled(world: World) -> list[dict[str, Any]]:
    """Commits of two processes with repeats and a refused row; returns the table's rows."""
    for life in range(2):
        ingest = world.start()
        for n in range(life * BATCHES_SENT // 2, (life + 1) * BATCHES_SENT // 2):
            rows = telemetry(range(n * ROWS, (n + 1) * ROWS))
            rows[3] |= {"score": 2.0} if n == 5 else {}
            world.broker.batch(f"device-{n % 3}", frame(TELEMETRY, rows))
            world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(n * 7, n * 7 + 9))))
            ingest.step()
    return world.records("telemetry")


def catalog_of(world: World) -> LakeCatalog:
    return open_catalog(catalogs(world.folder)[0])


def rebuild(world: World, source: Source, contract: str = "telemetry", **options: bool) -> Rebuilt:
    catalog = catalog_of(world) if contract == "telemetry" else open_catalog(catalogs(world.folder)[1])
    try:
        return Rebuild(catalog, MemoryLog(world.broker, world.clock), world.clock, contract).run(source, **options)
    finally:
        catalog.engine.dispose()


def forget(world: World) -> None:
    """Lose the table's pointer in the catalog."""
    with sqlite3.connect(world.folder / "catalog.db") as database:
        database.execute("DELETE FROM iceberg_tables WHERE table_name = 'telemetry'")


def assert_goes_on(world: World, before: list[dict[str, Any]]) -> None:
    """Everything sent again adds nothing, and what is new lands once."""
    for n in range(BATCHES_SENT + 2):
        world.broker.batch(f"device-{n % 3}", frame(TELEMETRY, telemetry(range(n * ROWS, (n + 1) * ROWS))))
    world.drain(world.start())
    found = world.records("telemetry")
    assert len(found) == len(before) + 2 * ROWS
    assert [row for row in found if row["seq"] < BATCHES_SENT * ROWS] == before
    assert [row["rule"] for row in world.records("quarantine")] == ["score.maximum"]


@pytest.mark.parametrize("source", Source)
def test_a_rebuilt_table_has_the_same_rows_and_ingest_goes_on(world: World, source: Source) -> None:
    before = filled(world)
    catalog = catalog_of(world)
    held = catalog.load_table(TELEMETRY.table)
    done = rebuild(world, source)
    assert world.records("telemetry") == before
    assert held.scan().to_arrow().num_rows == len(before)  # who has begun to read goes on
    assert (done.broken, done.unexplained) == ((), {})
    assert done.rows_from_files + done.rows_from_log == len(before)
    assert (done.rows_from_log == 0) == (source is Source.FILES)
    assert catalog.list_tables("field") == [("field", "telemetry")]
    running = world.ingests[-1]
    world.broker.batch("device-9", frame(TELEMETRY, telemetry([7])))
    running.drain()
    (added,) = [row for row in world.records("telemetry") if row["origin"] == "device-9"]
    assert_goes_on(world, [*before, added])
    catalog.engine.dispose()


@pytest.mark.parametrize("source", Source)
def test_what_was_erased_does_not_come_back_and_what_came_after_it_does(world: World, source: Source) -> None:
    filled(world)
    subject = Subject("asset", telemetry([7])[0]["asset_id"])
    catalog = catalog_of(world)
    sealed_until_ms = max(int(row["sealed_at"].timestamp() * 1_000) for row in world.records("telemetry"))
    world.clock.advance(max(0.0, (sealed_until_ms - world.clock.now_ms()) / 1_000 + 1))
    table, rule = next(found for found in tables_of(catalog, subject) if found[0].name() == ("field", "telemetry"))
    erased = erase(catalog, table, rule, "somebody", world.clock)
    assert erased.rows > 0
    before = world.records("telemetry")
    again = [row | {"asset_id": subject.id} for row in telemetry(range(3))]
    world.broker.batch("device-new", frame(TELEMETRY, again, sealed_at_ms=world.clock.now_ms() + 1_000))
    world.drain(world.start())
    done = rebuild(world, source)
    assert done.rows_erased == (erased.rows if source is Source.LOG else 0)
    found = world.records("telemetry")
    assert [row for row in found if row["origin"] != "device-new"] == before
    assert sum(row["origin"] == "device-new" for row in found) == len(again)
    catalog.engine.dispose()


@pytest.mark.parametrize("source", Source)
def test_a_rebuilt_table_keeps_what_its_columns_mean(world: World, source: Source) -> None:
    fields = (replace(f, type=FieldType.STRING) if f.name == "f1" else f for f in TELEMETRY.fields if f.name != "f2")
    newer = replace(TELEMETRY, version="2.0.0", fields=(*fields, Field(77, "f2", FieldType.STRING)))
    older = replace(TELEMETRY, version="1.1.0", fields=tuple(f for f in TELEMETRY.fields if f.name != "f9"))
    ingest = world.start()
    for contract in (TELEMETRY, newer, older):
        world.broker.publish(contract)
        rows = telemetry(range(5), **({"f1": "七", "f2": "new"} if contract is newer else {}))
        world.broker.batch(f"device-{contract.version}", frame(contract, rows))
        world.drain(ingest)
    said = ("origin", "seq", "f1", "f1__v1", "f2", "f9")
    before = world.rows(TELEMETRY).select(said).to_pylist()
    assert {(row["f1"], row["f1__v1"]) for row in before if row["seq"] == 3 and row["origin"] != "device-2.0.0"} == {
        ("-497", -497), (None, -497)
    }  # fmt: skip
    rebuild(world, source)
    successor = world.start()
    world.broker.batch("device-1.1.0", frame(older, telemetry(range(5, 6))))
    world.drain(successor)
    after = world.rows(TELEMETRY).select(said).to_pylist()
    again = [row for row in after if row["seq"] < 5]
    assert [row | {"f1": None} for row in again] == [row | {"f1": None} for row in before]
    assert all(row["f1"] in (None, "七", str(row["f1__v1"])) for row in again)
    (late,) = [row for row in after if row["seq"] == 5]
    assert (late["f1"], late["f1__v1"], late["f2"], late["f9"]) == ("-495", -495, None, None)
    assert not [name for name in world.rows(TELEMETRY).column_names if name.startswith("f1__v1_")]


def lose_a_data_file(world: World) -> None:
    max((folder(world) / "data").glob("*.parquet"), key=lambda path: path.stat().st_size).unlink()


def lose_the_manifests(world: World) -> None:
    for path in (folder(world) / "metadata").glob("*.avro"):
        path.unlink()


def lose_the_metadata(world: World) -> None:
    shutil.rmtree(folder(world) / "metadata")


def lose_metadata_and_catalog(world: World) -> None:
    lose_the_metadata(world)
    forget(world)


def lose_the_states(world: World) -> None:
    for path in (folder(world) / "metadata").glob("*.state"):
        path.unlink()


def lose_everything(world: World) -> None:
    shutil.rmtree(folder(world))
    forget(world)


LOSSES = [
    lose_a_data_file,
    lose_the_manifests,
    lose_the_metadata,
    lose_metadata_and_catalog,
    lose_the_states,
    lose_everything,
]


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("lose", LOSSES)
def test_whatever_is_lost_files_and_log_together_give_every_row_back(
    world: World, lose: Callable[[World], None], source: Source
) -> None:
    before = filled(world)
    lose(world)
    rebuild(world, source)
    assert world.records("telemetry") == before
    assert_goes_on(world, before)


@pytest.mark.parametrize("lose", [None, lose_the_states, lose_the_metadata, lose_everything])
@pytest.mark.parametrize("source", list(Source))
def test_a_row_that_was_put_back_is_there_once_after_a_rebuild(
    world: World, lose: Callable[[World], None] | None, source: Source
) -> None:
    filled(world)
    loose = tuple(replace(f, checks=Checks()) if f.name == "score" else f for f in TELEMETRY.fields)
    mended = replace(TELEMETRY, version="1.0.1", fields=loose)
    world.broker.publish(mended)
    (refused,) = world.records("quarantine")
    entry = Entry(
        "telemetry", refused["refused_version"], refused["origin"], refused["refused_epoch"], refused["refused_seq"],
        "lake", refused["rule"], refused["original"], round(refused["sealed_at"].timestamp() * 1_000),
    )  # fmt: skip
    batch = put_back(entry, [TELEMETRY, mended]).batch
    assert batch is not None
    world.broker.batch(entry.origin, batch)
    world.drain(world.start())
    before = [(row["origin"], row["epoch"], row["seq"]) for row in world.records("telemetry")]
    assert (entry.origin, entry.refused_epoch, entry.refused_seq) in before
    if lose is not None:
        lose(world)
    rebuild(world, source)
    world.broker.batch(entry.origin, batch)
    world.drain(world.start())
    assert [(row["origin"], row["epoch"], row["seq"]) for row in world.records("telemetry")] == before


def test_rows_that_the_log_has_no_more_come_from_the_files(world: World) -> None:
    before = filled(world)
    world.broker.wipe(BATCHES)
    with pytest.raises(TableConflictError, match=r"does not reach back to \d+ events of 3 origins"):
        rebuild(world, Source.LOG)
    assert world.records("telemetry") == before
    assert rebuild(world, Source.FILES).rows_from_files == len(before)
    assert world.records("telemetry") == before
    assert_goes_on(world, before)


def test_what_neither_files_nor_log_have_is_counted_and_not_asked_for_again(world: World) -> None:
    before = filled(world)
    world.broker.wipe(BATCHES)
    lose_a_data_file(world)
    done = rebuild(world, Source.FILES)
    lost = len(before) - len(world.records("telemetry"))
    assert lost > 0
    assert sum(done.unexplained.values()) == lost + 1  # and the refused one, which is in the quarantine
    assert len(done.broken) == 1
    marks = {origin: mark.upto for (origin, _), mark in world.broker.watermarks().items()}
    world.start()
    assert {origin: mark.upto for (origin, _), mark in world.broker.watermarks().items()} == marks


def test_a_commit_that_comes_before_the_swap_is_taken_along(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(world)
    move, calls = swap._move, list[int]()

    def overtaken(*arguments: Any) -> bool:
        if len(calls) < 3:
            calls.append(1)
            seq = BATCHES_SENT * ROWS + len(calls)
            world.broker.batch("device-0", frame(TELEMETRY, telemetry([seq])))
            world.drain(world.start())
        return move(*arguments)

    monkeypatch.setattr(swap, "_move", overtaken)
    rebuild(world, Source.LOG)
    assert len(calls) == 3
    found = [row["seq"] for row in world.records("telemetry") if row["seq"] > BATCHES_SENT * ROWS]
    assert found == [BATCHES_SENT * ROWS + n for n in (1, 2, 3)]


def test_a_rebuild_that_died_before_its_swap_changes_nothing_and_can_be_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled(world)
    with monkeypatch.context() as patch:
        patch.setattr(swap, "_move", lambda *_: False)
        with pytest.raises(CommitConflictError, match="stop it first"):
            rebuild(world, Source.LOG)
    catalog = catalog_of(world)
    assert {name for _, name in catalog.list_tables("field")} == {"telemetry", f"telemetry{SUFFIX}"}
    catalog.engine.dispose()
    assert world.records("telemetry") == before
    rebuild(world, Source.LOG)
    rebuild(world, Source.FILES)
    assert world.records("telemetry") == before
    assert_goes_on(world, before)


def test_decisions_come_back_once_each(world: World) -> None:
    for number in (1, 2, 1, 3):
        world.broker.append(DECISIONS, encode_decision(decision(number)))
    world.drain(world.start())
    before = world.records("decisions")
    for source in Source:
        rebuild(world, source, "decisions")
        assert world.records("decisions") == before
    world.broker.append(DECISIONS, encode_decision(decision(2)))
    world.drain(world.start())
    assert world.records("decisions") == before


def test_the_quarantine_is_not_rebuilt_from_the_log(world: World) -> None:
    filled(world)
    with pytest.raises(TableConflictError, match="rebuild it from files"):
        rebuild(world, Source.LOG, "quarantine")


def test_tables_are_registered_again_after_the_catalog_is_lost(world: World) -> None:
    before = filled(world)
    rebuild(world, Source.FILES)  # a table that has moved is found where it moved to
    world.broker.batch("device-0", frame(TELEMETRY, telemetry([BATCHES_SENT * ROWS + 1])))
    world.drain(world.start())
    pointers = {}
    for config in catalogs(world.folder):
        catalog = open_catalog(config)
        for namespace in catalog.list_namespaces():
            for name in catalog.list_tables(namespace):
                pointers[config.name, ".".join(name)] = catalog.load_table(name).metadata_location
        catalog.engine.dispose()
    (world.folder / "catalog.db").unlink()
    for (catalog_name, table), location in pointers.items():
        catalog = open_catalog(next(c for c in catalogs(world.folder) if c.name == catalog_name))
        assert register(catalog, table).metadata_location == location
        with pytest.raises(TableConflictError, match="knows it already"):
            register(catalog, table)
        catalog.engine.dispose()
    assert len(world.records("telemetry")) == len(before) + 1
    world.drain(world.start())
    assert len(world.records("telemetry")) == len(before) + 1


def test_ingest_makes_no_empty_table_over_one_that_the_catalog_has_lost(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = filled(world)
    forget(world)
    world.drain(world.start())
    assert "run `fieldlake table register lake_a.field.telemetry`" in caplog.text
    catalog = catalog_of(world)
    assert catalog.list_tables("field") == []
    register(catalog, TELEMETRY.table)
    catalog.engine.dispose()
    assert world.records("telemetry") == before
    assert_goes_on(world, before)


def test_of_two_newest_metadata_files_the_acknowledged_one_is_registered(world: World) -> None:
    before = filled(world)
    catalog = catalog_of(world)
    loser = catalog.load_table(TELEMETRY.table)
    world.broker.batch("device-0", frame(TELEMETRY, telemetry([BATCHES_SENT * ROWS + 1])))
    world.drain(world.ingests[-1])
    with pytest.raises(Exception, match="moved on"):
        loser.append(loser.scan(limit=1).to_arrow())
    forget(world)
    with pytest.raises(BrokenTableError, match="expected one newest metadata file, found 2"):
        register(catalog, TELEMETRY.table)
    acknowledged = {mark.snapshot_id for mark in world.broker.watermarks().values()}
    register(catalog, TELEMETRY.table, acknowledged=acknowledged)
    assert len(world.records("telemetry")) == len(before) + 1
    catalog.engine.dispose()


def test_a_table_whose_files_are_not_all_there_is_not_registered(world: World) -> None:
    filled(world)
    lose_a_data_file(world)
    forget(world)
    catalog = catalog_of(world)
    with pytest.raises(BrokenTableError, match=r"1 of \d+ live files are missing"):
        register(catalog, TELEMETRY.table)
    catalog.engine.dispose()


def test_a_table_that_says_how_to_open_files_is_not_registered(world: World, tmp_path: Path) -> None:
    world.drain(world.start())
    foreign = SqlCatalog("foreign", uri="sqlite:///:memory:", warehouse=f"file://{tmp_path}/foreign")
    foreign.create_namespace("ns")
    table = foreign.create_table("ns.t", world.rows(TELEMETRY).schema, properties={"s3.endpoint": "http://127.0.0.1:1"})
    catalog = catalog_of(world)
    with pytest.raises(UnsupportedTableError, match=r"s3\.endpoint"):
        register(catalog, "field.taken", table.location())
    catalog.engine.dispose()
    foreign.engine.dispose()


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_runs_and_outside_are_what_sets_say(numbers: set[int], held: set[int]) -> None:
    array = np.array(sorted(numbers), dtype=np.int64)
    assert {n for first, end in runs(array) for n in range(first, end)} == numbers
    assert runs(array) == ranges.union((n, n + 1) for n in numbers)
    found = array[outside(array, ranges.union((n, n + 1) for n in held))]
    assert set(found.tolist()) == numbers - held
