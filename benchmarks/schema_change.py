"""A contract changed a hundred times, in every way there is, while a thousand batches a second flow.

1. start    the whole stack; the first version is published and devices send.
2. changes  each next version is published a little before the first device uses it; half of the devices follow later.
            From the moment at which the first batch under a version is due, Trino is asked again and again for a row
            that shows it (a new or renamed column, a widened or retyped one, any row of the version); the clock stops
            at the end of the answer that does.
3. verdict  PyIceberg reads every row, in whatever version it was sent: each number of each device once, and every
            value under the newest names as it was sent, null where its version had none. The supervisor says whether
            ingest was started again.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from benchmarks.lake import changes as varied
from benchmarks.lake import judge
from benchmarks.lake.changes import KINDS, Change
from benchmarks.lake.ground import TRINO, Ground, Tell, ground
from benchmarks.lake.judge import Account
from benchmarks.lake.plots import panels
from benchmarks.lake.tables import TableWatch
from benchmarks.lake.vary import EPOCH, OWN_BATCHES, Job, Varying
from benchmarks.lake.workers import Sampler
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts.contract import Contract
from contracts.errors import FieldlakeError
from infra.demo.figures import latency
from infra.demo.observers import trino_time
from infra.demo.watch import trino_client
from infra.launcher.errors import SupervisorError
from infra.launcher.parts import services
from infra.launcher.supervision import Supervisor

NAME: Final = "schema-change"
PUBLISHED_BEFORE_S: Final = 1.0  # s before the first row that carries it: a device cannot have a version nobody made
ASK_PAUSE_S: Final = 0.05
# s before now from which a warming question wants rows: they are visible within two seconds of their seal. From now on
# there are none, and the code that reads files would be loaded by the first question that counts.
WARM_BACK_S: Final = 5.0
ASKING_AT_ONCE: Final = 4
PASSING: Final = (FieldlakeError, OSError)
JUDGED_ROWS: Final = 200_000


class Sizes(Struct, frozen=True):
    """The flow and the changes in it."""

    changes: int = 100
    kinds: tuple[str, ...] = KINDS
    seed: int = 5
    devices: int = 20
    batch_rows: int = 10
    batches_per_s: float = 1_000.0
    first_change_s: float = 60.0
    change_every_s: float = 4.0
    lag_s: float = 2.0
    visible_within_s: float = 30.0
    drain_within_s: float = 300.0
    parts: tuple[str, ...] | None = None


FULL: Final = Sizes()
QUICK: Final = Sizes(
    changes=4,
    kinds=("add", "optional", "table"),
    devices=4,
    batches_per_s=40.0,
    first_change_s=8.0,
    drain_within_s=60.0,
    parts=(services.INGEST, TRINO),
)


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure it."""
    start = varied.first("bench_changing")
    planned = varied.plan(start, sizes.changes, sizes.kinds, sizes.seed)
    with ground(tell, sizes.parts) as place:
        place.publish(start)
        watch = TableWatch(place, start)
        watch.await_table()
        watch.close()
        job = _job(place, start, planned, sizes)
        pids: set[int] = set()
        devices = Varying(place, job)
        try:
            begin_s = devices.begin_s()
            with Sampler(lambda: _noted(place, pids), 1.0, (SupervisorError,)):
                visible_ms = _change(place, job, begin_s, sizes)
                sent = devices.result()
        finally:
            devices.kill()
        accounts = _accounts(place, job)
        newest = next((c.contract for c in reversed(planned) if c.kind != "table"), start)
        tell("judging every value ...")
        wrong = _wrong(place, job, newest)
    shown = [ms for ms in visible_ms.values() if ms is not None]
    spread = latency(shown)
    figures: Figures = {
        "schema_changes": len(planned),
        "schema_lost": sum(account.lost for account in accounts.values()),
        "schema_doubled": sum(account.doubled for account in accounts.values()),
        "schema_wrong": wrong,
        "schema_visible_p50_ms": spread.p50_ms if shown else None,
        "schema_visible_p99_ms": spread.p99_ms if len(shown) == len(planned) else None,
        "never_visible": len(planned) - len(shown),
        "restarts": max(0, len(pids) - 1),
    }
    by_kind = {
        kind: [(float(c.number), ms) for c in planned if c.kind == kind and (ms := visible_ms[c.number]) is not None]
        for kind in sizes.kinds
    }
    panels(folder / f"{NAME}.png", [("until Trino shows a change", "change", "ms", by_kind)], dots=True)
    how = {
        "sizes": msgspec.to_builtins(sizes),
        "kinds": dict(Counter(change.kind for change in planned)),
        "events": sum(account.sent for account in accounts.values()),
        "sender_behind_ms_max": sent.behind_ms_max,
        "accounts": {name: msgspec.to_builtins(account) for name, account in accounts.items()},
        "running": "the whole stack" if sizes.parts is None else sizes.parts,
    }
    return result(NAME, how, figures)


def _job(place: Ground, start: Contract, planned: list[Change], sizes: Sizes) -> Job:
    seconds = sizes.first_change_s + sizes.changes * sizes.change_every_s + sizes.lag_s
    return Job(
        place.endpoints.kafka.bootstrap,
        start,
        tuple(planned),
        sizes.devices,
        sizes.batch_rows,
        sizes.batches_per_s,
        sizes.first_change_s,
        sizes.change_every_s,
        sizes.lag_s,
        seconds,
        sizes.drain_within_s,
    )


def _noted(place: Ground, pids: set[int]) -> Mapping[str, float]:
    for name, state in Supervisor(place.settings).states().items():
        if name.startswith(services.INGEST) and state.pid:
            pids.add(state.pid)
    return {}


def _change(place: Ground, job: Job, begin_s: float, sizes: Sizes) -> dict[int, float | None]:
    """Publish every change in its time; return the ms until each was visible, None where it was not in time."""
    pause = threading.Event()
    asked: dict[int, Future[float | None]] = {}
    _warm(place, job.start, begin_s + sizes.first_change_s - PUBLISHED_BEFORE_S)
    with ThreadPoolExecutor(ASKING_AT_ONCE, thread_name_prefix="visible") as pool:
        for change in job.changes:
            due_s = begin_s + job.due_s(change)
            pause.wait(max(0.0, due_s - PUBLISHED_BEFORE_S - time.time()))
            place.publish(change.contract)
            place.tell(f"change {change.number} of {len(job.changes)}: {change.kind}")
            asked[change.number] = pool.submit(_visible_ms, place, change, due_s, sizes.visible_within_s)
    return {number: future.result() for number, future in asked.items()}


def _warm(place: Ground, contract: Contract, until_s: float) -> None:
    """Ask what will be measured, of the first version, until a Unix time: an engine's first questions load code."""
    pause, asked = threading.Event(), 0
    with trino_client(place.endpoints) as client:
        while time.time() < until_s:
            asked += 1
            with suppress(*PASSING):
                client.query(
                    f"SELECT asset_id FROM {contract.catalog}.{contract.table} "
                    f"WHERE contract_version = '{contract.version}' "
                    f"AND sealed_at >= {trino_time(round((time.time() - WARM_BACK_S) * 1_000_000))} LIMIT {asked}"
                )
            pause.wait(ASK_PAUSE_S)


def _visible_ms(place: Ground, change: Change, due_s: float, within_s: float) -> float | None:
    contract, pause = change.contract, threading.Event()
    shown = "1" if change.column is None else f'"{change.column}"'
    sql = (
        f"SELECT {shown} FROM {contract.catalog}.{contract.table} WHERE contract_version = '{contract.version}' "
        f"AND sealed_at >= {trino_time(round(due_s * 1_000_000))} LIMIT 1"
    )
    pause.wait(max(0.0, due_s - time.time()))
    with trino_client(place.endpoints) as client:
        while time.time() - due_s < within_s:
            try:
                if client.query(sql).rows:
                    return round((time.time() - due_s) * 1_000, 1)
            except PASSING:
                pass  # The column is not there yet; how long that may last is what is measured.
            pause.wait(ASK_PAUSE_S)
    return None


def _accounts(place: Ground, job: Job) -> dict[str, Account]:
    """Compare identities of the table that changes, and of every new one that is there."""
    count = job.total // job.devices * job.batch_rows
    found = {
        job.start.id: judge.account(
            place.endpoints, job.start, {(job.device(n), EPOCH): ((0, count),) for n in range(job.devices)}
        )
    }
    own = OWN_BATCHES * job.batch_rows
    for change in job.changes:
        if change.kind != "table":
            continue
        sent = {(job.own_device(change), EPOCH): ((0, own),)}
        try:
            found[change.contract.id] = judge.account(place.endpoints, change.contract, sent)
        except LookupError:
            found[change.contract.id] = Account(own, 0, own, 0, 0)
    return found


def _wrong(place: Ground, job: Job, newest: Contract) -> int:
    """Return how many rows do not show what was sent."""
    versions = {job.start.version: job.start}
    versions |= {change.contract.version: change.contract for change in job.changes if change.kind != "table"}
    watch = TableWatch(place, job.start)
    bad = 0
    try:
        reader = watch.table().scan().to_arrow_batch_reader()
        waiting: list[pa.RecordBatch] = []
        for batch in reader:
            waiting.append(batch)
            if sum(len(one) for one in waiting) >= JUDGED_ROWS:
                bad += _wrong_of(pa.Table.from_batches(waiting), versions, newest)
                waiting = []
        if waiting:
            bad += _wrong_of(pa.Table.from_batches(waiting), versions, newest)
    finally:
        watch.close()
    return bad


def _wrong_of(rows: pa.Table, versions: Mapping[str, Contract], newest: Contract) -> int:
    bad = 0
    for name in pc.unique(rows.column("contract_version")).to_pylist():
        own = rows.filter(pc.equal(rows.column("contract_version"), name))
        bad += len(own) if name not in versions else varied.wrong(versions[name], newest, own)
    return bad
