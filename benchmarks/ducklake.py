"""DuckLake's streaming benchmark, as it maps onto devices and watermarks: 23 columns, 30,000 batches of 10 rows.

1. insert      origins side by side; each sends its next batch only when the watermark of its last one has come, so
               every batch was acknowledged as durable, and queryable, one by one. From the first send to the last mark.
2. aggregate   9 aggregations over the 300,000 rows through Trino, once each, by a client that has asked other things
               before; and again through DuckDB on the same files.
3. checkpoint  the same into another table, while maintenance, which merges files as they come otherwise, is stopped in
               its tracks; from its going on until that table has no more small files.

The reference has one client which waits for each batch of 10 rows; how many there are here, the result says.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Producer
from msgspec import Struct

from benchmarks.lake import judge, workload
from benchmarks.lake.batches import templates
from benchmarks.lake.ground import Ground, Tell, ground
from benchmarks.lake.marks import Marks
from benchmarks.lake.plots import panels
from benchmarks.lake.tables import PASSING, TableWatch
from benchmarks.lake.workers import MAINTENANCE, Sampler, Worker
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import topics
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from contracts.watermark import Watermark
from infra.demo.figures import latency
from infra.demo.tables import LakeReader
from infra.demo.watch import rest_warmer, trino_client
from infra.launcher.parts import services
from infra.launcher.supervision import Supervisor

NAME: Final = "ducklake"
SHAPE_EVERY_S: Final = 1.0
WARM_UPS: Final = 20  # other questions before the nine: a session's first ones pay for what it loads
POLL_S: Final = 0.02
FLUSH_WITHIN_S: Final = 10.0

# {t} is the table. Of the kinds that the reference asks: counts, sums, averages, groups, time buckets, distinct values.
AGGREGATIONS: Final = (
    "SELECT count(*) FROM {t}",
    "SELECT sum(m5), avg(m5), max(m5) FROM {t}",
    "SELECT state, count(*) FROM {t} GROUP BY state",
    "SELECT state, avg(m6), min(m6), max(m6) FROM {t} GROUP BY state",
    "SELECT asset_id, count(*) AS n FROM {t} GROUP BY asset_id ORDER BY n DESC, asset_id LIMIT 10",
    "SELECT count(DISTINCT asset_id) FROM {t}",
    "SELECT date_trunc('second', occurred_at) AS s, sum(m8) FROM {t} GROUP BY 1 ORDER BY 1 LIMIT 60",
    "SELECT count(*) FROM {t} WHERE m9 AND m10 > 64",
    "SELECT state, m14, count(*), sum(m11), avg(m20) FROM {t} GROUP BY state, m14",
)


class Sizes(Struct, frozen=True):
    """How much is sent, and from how many side by side."""

    origins: int = 100
    batches: int = 300  # of each
    batch_rows: int = 10
    insert_within_s: float = 3_600.0
    files_max: int = 20  # a file for each of 16 buckets of the history, and some of the tail
    checkpoint_within_s: float = 300.0
    trino: bool = True
    parts: tuple[str, ...] | None = None


FULL: Final = Sizes()
QUICK: Final = Sizes(
    origins=20, batches=3, files_max=20, checkpoint_within_s=60.0, trino=False, parts=(services.INGEST,)
)


class Devices:
    """All origins; `on_mark` sends the next batch of one whose last is acknowledged."""

    def __init__(self, place: Ground, contract: Contract, sizes: Sizes) -> None:
        self._made = templates(contract, sizes.batches, sizes.batch_rows)
        self._contract, self._rows = contract.id, sizes.batch_rows
        self._next = {f"duck-{number}": 0 for number in range(sizes.origins)}
        self._sent_s: dict[str, float] = {}
        self.waits_ms: list[tuple[float, float]] = []  # Unix s of the send, ms until the mark
        self._log = Producer(
            {"bootstrap.servers": place.endpoints.kafka.bootstrap, "acks": "all", "linger.ms": 0, "log_level": 0}
        )
        self._done = threading.Event()
        self.ended_s = 0.0
        self._left = sizes.origins

    def start(self) -> float:
        """Send the first batch of each; return when (Unix s)."""
        began_s = time.time()
        for origin in self._next:
            self._send(origin)
        self._log.poll(0)
        return began_s

    def on_mark(self, mark: Watermark, received_s: float) -> None:
        """Take a watermark; a repeated one changes nothing."""
        at = self._next.get(mark.origin)
        if mark.contract != self._contract or at is None or mark.upto < at * self._rows or at == 0:
            return
        sent_s = self._sent_s.pop(mark.origin, None)
        if sent_s is None:
            return
        self.waits_ms.append((sent_s, (received_s - sent_s) * 1_000))
        if at < len(self._made):
            self._send(mark.origin)
            self._log.poll(0)
            return
        self._left -= 1
        if self._left == 0:
            self.ended_s = received_s
            self._done.set()

    def wait(self, within_s: float) -> float:
        """Wait for the last mark; return when it came (Unix s)."""
        if not self._done.wait(within_s):
            raise OperatorMustActError(f"ducklake: {self._left} origins are not done within {within_s:.0f} s")
        self._log.flush(FLUSH_WITHIN_S)
        return self.ended_s

    def _send(self, origin: str) -> None:
        number = self._next[origin]
        self._next[origin] = number + 1
        now_s = time.time()
        self._sent_s[origin] = now_s
        batch = self._made[number].stamped(1, round(now_s * 1_000))
        self._log.produce(topics.BATCHES, batch, origin, headers=[(topics.ORIGIN_HEADER, origin.encode())])


class Inserted(Struct, frozen=True):
    """What one insert took, and what its nine questions took then, by engine."""

    began_s: float
    seconds: float
    waits_ms: list[tuple[float, float]]
    asked: dict[str, float]


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure all three."""
    kept, held = workload.wide("bench_duck"), workload.wide("bench_duck_held")
    with ground(tell, sizes.parts) as place:
        place.publish(kept, held)
        watch, held_watch = TableWatch(place, kept), TableWatch(place, held)
        try:
            watch.await_table()
            held_watch.await_table()
            with Sampler(watch.shape, SHAPE_EVERY_S, PASSING) as shapes:
                found = _inserted(place, kept, sizes)
            Supervisor(place.settings).stop(services.MAINTENANCE)
            maintenance = Worker(place, MAINTENANCE).start()
            try:
                maintenance.await_ready()
                maintenance.pause()
                without = _inserted(place, held, sizes)
                tell("merging ...")
                checkpoint_s, files = _checkpoint(maintenance, held_watch, sizes)
            finally:
                maintenance.stop()
        finally:
            watch.close()
            held_watch.close()
    waits = latency([wait_ms for _, wait_ms in found.waits_ms])
    figures: Figures = {
        "insert_s": round(found.seconds, 1),
        "aggregate_s": found.asked.get("trino"),
        "aggregate_duckdb_s": found.asked["duckdb"],
        "checkpoint_s": round(checkpoint_s, 2),
        "acknowledged_p50_ms": waits.p50_ms,
        "acknowledged_p99_ms": waits.p99_ms,
        "insert_without_maintenance_s": round(without.seconds, 1),
        "aggregate_without_maintenance_s": without.asked.get("trino"),
    }
    shown = [(round(sent_s - found.began_s, 2), round(wait_ms, 1)) for sent_s, wait_ms in found.waits_ms]
    lines = {key: shapes.series(key, found.began_s) for key in ("files", "snapshots")}
    panels(
        folder / f"{NAME}.png",
        [("from a batch to its watermark", "s", "ms", {"batch": shown}), ("the table meanwhile", "s", "", lines)],
        dots=True,
    )
    how = {
        "sizes": msgspec.to_builtins(sizes),
        "insert": f"{sizes.origins} origins side by side, each waits for its watermark before its next batch",
        "aggregate": [sql.format(t=kept.id) for sql in AGGREGATIONS],
        "checkpoint": f"maintenance, from its going on to at most {sizes.files_max} data files; {files:.0f} before",
        "running": "the whole stack; for the checkpoint the same once more with maintenance stopped until then"
        if sizes.parts is None
        else sizes.parts,
    }
    return result(NAME, how, figures)


def _inserted(place: Ground, contract: Contract, sizes: Sizes) -> Inserted:
    """Insert all batches into a table, and ask the nine questions of it."""
    events = sizes.origins * sizes.batches * sizes.batch_rows
    devices = Devices(place, contract, sizes)
    with Marks(place.endpoints.kafka.bootstrap, devices.on_mark):
        place.tell(f"{events // sizes.batch_rows:,} batches of {sizes.batch_rows} rows into {contract.table} ...")
        began_s = devices.start()
        seconds = devices.wait(sizes.insert_within_s) - began_s
    _require(place, contract, sizes, events)
    place.tell(f"inserted in {seconds:.1f} s; aggregating ...")
    asked = _aggregate(place, contract, sizes.trino)
    place.tell(f"aggregated in {asked} s")
    return Inserted(began_s, seconds, devices.waits_ms, asked)


def _require(place: Ground, contract: Contract, sizes: Sizes, events: int) -> None:
    found = judge.sums(place.endpoints, contract)
    count = sizes.batches * sizes.batch_rows
    expected = (count, 0, count - 1, (count - 1) * count // 2)
    if len(found) != sizes.origins or set(found.values()) != {expected}:
        raise OperatorMustActError(f"table {contract.table}: expected {events} rows, {expected} of each, found {found}")


def _aggregate(place: Ground, contract: Contract, with_trino: bool) -> dict[str, float]:
    """Return the seconds that the nine take, by engine."""
    found: dict[str, float] = {}
    if with_trino:
        rest_warmer(place.endpoints)
        with trino_client(place.endpoints) as client:
            table = f"{contract.catalog}.{contract.table}"
            for number in range(WARM_UPS):
                client.query(f"SELECT max(seq), {number} FROM {table} WHERE epoch = {number}")
            found["trino"] = _timed(lambda sql: client.query(sql.format(t=table)))
    with LakeReader(place.endpoints) as reader:

        def ask(sql: str) -> object:
            location = reader.metadata_location(contract.catalog, contract.table)
            return reader.duck.execute(sql.format(t=f"iceberg_scan('{location}')")).fetchall()

        found["duckdb"] = _timed(ask)
    return found


def _timed(ask: Callable[[str], object]) -> float:
    began_s = time.perf_counter()
    for sql in AGGREGATIONS:
        ask(sql)
    return round(time.perf_counter() - began_s, 3)


def _checkpoint(maintenance: Worker, watch: TableWatch, sizes: Sizes) -> tuple[float, float]:
    """Return the seconds until the files are merged, and how many there were before."""
    before = watch.shape().get("files", 0.0)
    began_s = time.time()
    maintenance.go_on()
    while (files := watch.shape().get("files", 0.0)) > sizes.files_max:
        if time.time() - began_s > sizes.checkpoint_within_s:
            raise OperatorMustActError(
                f"maintenance: expected at most {sizes.files_max} files of {before:.0f}, found {files:.0f} after "
                f"{sizes.checkpoint_within_s:.0f} s: {maintenance.status()}"
            )
        assert maintenance.pid
        time.sleep(POLL_S)
    return time.time() - began_s, before
