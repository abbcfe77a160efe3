"""Ingest and maintenance as processes over a real log, database and both stores; DuckDB judges the tables."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace
from pyiceberg.io.pyarrow import PyArrowFileIO

from contracts.topics import DEAD
from lakehouse.iceberg import IcebergLake
from lakehouse.metadata_files import files_in
from tests.lakehouse import judge
from tests.lakehouse.frames import CONTRACTS, clicks, frame, telemetry
from tests.lakehouse.plant import Plant, Service
from tests.waiting import eventually

pytestmark = pytest.mark.stack

TELEMETRY, CLICKS, QUARANTINE = CONTRACTS["telemetry"], CONTRACTS["clicks"], CONTRACTS["quarantine"]
ROWS = 25
NICENESS = 10  # of maintenance, beyond that of whoever starts both


def await_upto(plant: Plant, origin: str, contract: str, upto: int) -> None:
    def probe() -> bool:
        mark = plant.watermarks().get((origin, contract))
        return mark is not None and mark.upto >= upto

    eventually(probe, lambda: f"watermark of {origin}/{contract} at {upto}; have {plant.watermarks()}")


def counts(plant: Plant, origin: str) -> tuple[int, int, int]:
    """Rows, different identities and the highest seq of an origin's telemetry, as DuckDB sees them."""
    (found,) = judge.read(
        plant.config,
        TELEMETRY,
        f"SELECT count(*), count(DISTINCT (epoch, seq)), max(seq) FROM rows WHERE origin = '{origin}'",
    )
    return found


def test_rows_reach_both_stores_and_an_outside_reader_agrees(plant: Plant, ingest: Service) -> None:
    ingest.start()
    rows = telemetry(range(40))
    rows[5] = rows[5] | {"asset_id": "x" * 65}
    plant.send("both-1", [frame(TELEMETRY, rows), b"FLMBnot a batch"])
    plant.send("both-1", [frame(CLICKS, clicks(range(12)))])
    await_upto(plant, "both-1", "telemetry", 40)
    await_upto(plant, "both-1", "clicks", 12)
    assert counts(plant, "both-1") == (39, 39, 39)
    query = "SELECT seq, user_id, dwell_s, epoch_us(occurred_at) FROM rows WHERE origin = 'both-1' ORDER BY seq"
    expected = [(r["seq"], r["user_id"], r["dwell_s"], r["occurred_at"]) for r in clicks(range(12))]
    assert judge.read(plant.config, CLICKS, query) == expected
    refused = judge.read(plant.config, QUARANTINE, "SELECT seq, rule FROM rows WHERE origin = 'both-1'")
    assert refused == [(5, "asset_id.max_length")]
    eventually(lambda: any(b'"both-1"' in letter for letter in plant.read(DEAD)), "the broken batch's dead letter")
    assert ingest.stop() == 0


def test_tables_that_several_make_at_once_are_made_once(plant: Plant) -> None:
    made = [replace(CLICKS, id=f"made_{number}", catalog=f"lake_{'ab'[number % 2]}") for number in range(6)]
    lakes = [IcebergLake(plant.config.catalogs) for _ in range(3)]
    with ThreadPoolExecutor(len(lakes) * len(made)) as pool:
        opened = [pool.submit(lake.open, contract) for contract in made for lake in lakes]
        tables = [future.result().table for future in opened]
    for contract in made:
        assert len({str(table.metadata.table_uuid) for table in tables if table.name()[-1] == contract.id}) == 1
        table = next(table for table in tables if table.name()[-1] == contract.id)
        io = PyArrowFileIO(table.io.properties)
        assert sum(name.startswith("00000-") for name in files_in(io, f"{table.location()}/metadata")) == 1
    for lake in lakes:
        lake.close()


def test_killing_ingest_again_and_again_loses_and_doubles_nothing(plant: Plant, ingest: Service) -> None:
    batches = [frame(TELEMETRY, telemetry(range(n * ROWS, (n + 1) * ROWS))) for n in range(40)]
    for life in range(4):
        ingest.start(until_ready=life == 0)
        plant.send("killed-1", batches[life * 10 : (life + 1) * 10])
        if life % 2:
            plant.send("killed-1", batches[: life * 10 : 3])
            await_upto(plant, "killed-1", "telemetry", (life * 10 + 1) * ROWS)
        ingest.kill()
    ingest.start()
    await_upto(plant, "killed-1", "telemetry", 40 * ROWS)
    assert counts(plant, "killed-1") == (40 * ROWS, 40 * ROWS, 40 * ROWS - 1)


def test_workers_come_and_go_and_every_row_is_there_once(plant: Plant, tmp_path: Path) -> None:
    """Two share the work, the first is killed, a third comes, the second leaves in its own time."""
    workers: list[Service] = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        workers.append(Service("lakehouse", folder, replace(plant.config, worker=f"ingest-{number}")))
    one, two, three = workers
    try:
        one.start()
        two.start()
        for part in range(4):
            for origin in range(6):
                seqs = range(part * ROWS, (part + 1) * ROWS)
                plant.send(f"shared-{origin}", [frame(TELEMETRY, telemetry(seqs))])
            if part == 1:
                one.kill()
            if part == 2:
                three.start()
                assert two.stop() == 0
        for origin in range(6):
            await_upto(plant, f"shared-{origin}", "telemetry", 4 * ROWS)
            assert counts(plant, f"shared-{origin}") == (4 * ROWS, 4 * ROWS, 4 * ROWS - 1)
    finally:
        for worker in workers:
            worker.stop()


def test_an_outage_of_any_store_is_waited_out(plant: Plant, ingest: Service) -> None:
    ingest.start()
    for number, daemon in enumerate(plant.daemons):
        plant.send("outage-1", [frame(TELEMETRY, telemetry(range(number * ROWS, (number + 1) * ROWS)))])
        daemon.kill()
        daemon.start()
        await_upto(plant, "outage-1", "telemetry", (number + 1) * ROWS)
    rows = len(plant.daemons) * ROWS
    assert counts(plant, "outage-1") == (rows, rows, rows - 1)


def test_merging_beside_the_commits_changes_no_row(plant: Plant, ingest: Service, maintenance: Service) -> None:
    ingest.start()
    maintenance.start()
    # Whoever commits or queries goes first.
    assert psutil.Process(maintenance.pid).nice() == psutil.Process(ingest.pid).nice() + NICENESS
    for number in range(120):
        if number % 20 == 19:  # files of a killed writer are nobody's but maintenance's, once they are old enough
            ingest.kill()
            ingest.start()
        plant.send("merged-1", [frame(TELEMETRY, telemetry(range(number * ROWS, (number + 1) * ROWS)))])
        await_upto(plant, "merged-1", "telemetry", (number + 1) * ROWS)
    assert counts(plant, "merged-1") == (120 * ROWS, 120 * ROWS, 120 * ROWS - 1)
    status = maintenance.config_file.with_name("lakehouse.maintenance.json.status.json")
    eventually(status.exists, "maintenance has finished a pass")
    merged = '"lake_a.field.telemetry":'
    eventually(
        lambda: merged in status.read_text().split('"files_merged":')[1].split("}")[0], "maintenance merged its files"
    )
    assert maintenance.stop() == 0
