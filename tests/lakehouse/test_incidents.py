"""A real event log, sent as micro-batches with repeats, overlaps and in another order, across restarts: DuckDB's answer
over the original file is the table's."""

import os
from pathlib import Path
from random import Random
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from msgspec.structs import replace

from contracts.contract import Contract, Field, FieldType
from infra.setup.paths import repo_root
from lakehouse.schema import wire_schema
from tests.lakehouse.frames import CONTRACTS, frame
from tests.lakehouse.world import World

DATA = Path(os.environ.get("FIELDLAKE_DATA_DIR", repo_root().parent / "shared" / "data"))
LOG = DATA / "itsm_incidents" / "incident_event_log.csv.gz"
NUMBERS: Final = ("reassignment_count", "reopen_count", "sys_mod_count")
TIMES: Final = ("opened_at", "sys_created_at", "sys_updated_at", "resolved_at", "closed_at")  # day/month/year
ORIGINS: Final = 6  # gateways, each with the incidents whose number leaves this remainder
BATCH_ROWS: Final = 120
WAVES: Final = 24  # drained one after the other, so about as many commits
SEED: Final = 20_161_122

pytestmark = pytest.mark.skipif(not LOG.exists(), reason="the shared data is not here")


def read_log(engine: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
    """Make the table `events` (typed columns, origin, seq); return the source's column names."""
    engine.execute(
        f"CREATE TABLE raw AS SELECT row_number() OVER () AS line, * FROM read_csv('{LOG}', all_varchar=true)"
    )
    names = tuple(row[0] for row in engine.execute("DESCRIBE raw").fetchall() if row[0] != "line")
    typed = ", ".join(_typed(name) for name in names)
    engine.execute(
        f"CREATE TABLE events AS SELECT *, row_number() OVER (PARTITION BY origin ORDER BY line) - 1 AS seq FROM "
        f"(SELECT line, 'gateway-' || (substr(number, 4)::INT % {ORIGINS}) AS origin, {typed} FROM raw)"
    )
    return names


def _typed(name: str) -> str:
    if name in NUMBERS:
        return f"{name}::INT AS {name}"
    if name in TIMES:
        return f"epoch_us(strptime(nullif({name}, '?'), '%d/%m/%Y %H:%M')) AS {name}"
    return name


def contract_for(names: tuple[str, ...]) -> Contract:
    """A contract with the log's columns."""
    kinds = dict.fromkeys(NUMBERS, FieldType.INT) | dict.fromkeys(TIMES, FieldType.TIMESTAMPTZ)
    fields = tuple(Field(at, name, kinds.get(name, FieldType.STRING)) for at, name in enumerate(names, start=1))
    return replace(
        CONTRACTS["service_history"],
        id="incidents",
        fields=fields,
        subject_field="number",
        event_time_field="sys_updated_at",
        sort_fields=("number", "sys_updated_at"),
    )


def batches(events: pa.Table, contract: Contract, rng: Random) -> list[bytes]:
    """Frames of one origin: all of it once, a third of it again in other cuts that overlap."""
    cuts = [(at, BATCH_ROWS) for at in range(0, len(events), BATCH_ROWS)]
    cuts += [(rng.randrange(len(events)), rng.randint(1, 2 * BATCH_ROWS)) for _ in range(len(cuts) // 3)]
    found = []
    for first, size in cuts:
        rows = events.slice(first, size).select(wire_schema(contract).names).cast(wire_schema(contract))
        (batch,) = (
            rows.set_column(0, "seq", pa.array(np.diff(np.asarray(rows["seq"]), prepend=np.int64(0))))
            .combine_chunks()
            .to_batches()
        )
        raw = batch.serialize().to_pybytes()
        found.append(frame(contract, [], raw=raw, first_seq=first, span=len(rows), count=len(rows)))
    return found


def test_every_event_of_a_real_log_is_in_the_table_once_and_the_newest_states_agree(tmp_path: Path) -> None:
    rng = Random(SEED)
    engine = duckdb.connect()
    names = read_log(engine)
    contract = contract_for(names)
    events = engine.execute("SELECT * FROM events ORDER BY origin, seq").fetch_arrow_table()
    world = World(tmp_path, ("quarantine",))
    world.broker.publish(contract)
    sent = [
        (origin, batch)
        for origin in sorted(pc.unique(events["origin"]).to_pylist())
        for batch in batches(events.filter(pc.equal(events["origin"], origin)), contract, rng)
    ]
    rng.shuffle(sent)
    ingest = world.start()
    for wave in range(WAVES):
        for origin, batch in sent[wave::WAVES]:
            world.broker.batch(origin, batch)
        if wave % 5 == 4:  # its round was never committed, the next process reads it again
            ingest = world.start()
        world.drain(ingest)
    table = world.rows(contract)
    world.close()
    engine.register("lake", table.set_column(4, "sealed_at", table["sealed_at"].cast(pa.int64())))
    _assert_once(engine, names)
    _assert_newest_states(engine, table, names)
    assert {mark.upto for mark in world.broker.watermarks().values()} == {
        row[0] for row in engine.execute("SELECT count(*) FROM events GROUP BY origin").fetchall()
    }


def _assert_once(engine: duckdb.DuckDBPyConnection, names: tuple[str, ...]) -> None:
    lake = ", ".join(f"epoch_us({name}) AS {name}" if name in TIMES else name for name in names)
    for one, other in (("events", "lake"), ("lake", "events")):
        columns = {"events": f"origin, seq, {', '.join(names)}", "lake": f"origin, seq, {lake}"}
        query = f"SELECT {columns[one]} FROM {one} EXCEPT ALL SELECT {columns[other]} FROM {other}"
        assert engine.execute(f"SELECT count(*) FROM ({query})").fetchall() == [(0,)]
    assert (
        engine.execute("SELECT count(*) FROM lake").fetchall() == engine.execute("SELECT count(*) FROM raw").fetchall()
    )


def _assert_newest_states(engine: duckdb.DuckDBPyConnection, table: pa.Table, names: tuple[str, ...]) -> None:
    """The newest state of an incident is its last change, by time and then by the number of changes."""
    batch = engine.execute(
        "SELECT number, incident_state, sys_mod_count, assignment_group, active FROM raw QUALIFY row_number() OVER "
        "(PARTITION BY number ORDER BY strptime(sys_updated_at, '%d/%m/%Y %H:%M') DESC, sys_mod_count::INT DESC) = 1"
    ).fetchall()
    order = [("number", "ascending"), ("sys_updated_at", "ascending"), ("sys_mod_count", "ascending")]
    ordered = table.sort_by(order).combine_chunks()
    number = ordered["number"].to_numpy()
    newest = ordered.filter(pa.array(np.append(number[1:] != number[:-1], True)))
    columns = ("number", "incident_state", "sys_mod_count", "assignment_group", "active")
    found = {tuple(str(row[name]) for name in columns) for row in newest.select(columns).to_pylist()}
    assert found == set(batch)
    assert len(found) == newest.num_rows == len(set(number))
