"""The lake under kill -9 and a faulty object store: nothing lost, nothing doubled.

1. start    log, catalog, both stores, ingest, maintenance and Trino, kept by the supervisor; ingest and maintenance
            reach each store through a proxy that makes a seed's faults.
2. flow     devices send, some batches twice, late, or cut otherwise, and send again what no watermark covers. At
            random moments the ingest, the log, the database or a store is killed; a committer while it writes the last
            file of a commit, before or after the store has it.
3. drain    nothing new; until every event is covered by a watermark.
4. verdict  DuckDB compares identities one by one with the devices' ledger; Trino counts the same rows.

All of it twice, with different seeds.
"""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.chaos.kills import PAUSE_S, Killed, expected_s
from benchmarks.lake import judge, workload
from benchmarks.lake.ground import TRINO, UNDER_INGEST, Ground, Tell, ground
from benchmarks.lake.judge import Account
from benchmarks.lake.kills import KINDS, Killer, plan
from benchmarks.lake.marks import Marks
from benchmarks.lake.plots import Lines, panels
from benchmarks.lake.resend import Job, Ledger, Resending
from benchmarks.lake.s3_faults import Fault, Rates
from benchmarks.lake.s3_proxy import S3Proxy
from benchmarks.lake.tables import TableWatch
from benchmarks.lake.workers import Sampler
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import contract as contracts
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from infra.demo.watch import trino_client
from infra.launcher.files import write_file
from infra.launcher.parts import services
from infra.launcher.supervision import Supervisor

NAME: Final = "lake-chaos"
KILLS_VARIABLE: Final = "FIELDLAKE_CHAOS_KILLS"  # fewer, to try it out; the result says how many
FIRST_MARK_WITHIN_S: Final = 120.0
SAMPLE_EVERY_S: Final = 1.0


class Sizes(Struct, frozen=True):
    """How much is sent and killed."""

    seeds: tuple[int, ...] = (20_261_122, 20_261_123)
    kills: int = 200
    origins: int = 20
    batches_per_s: float = 50.0
    batch_rows: int = 20
    drain_within_s: float = 900.0
    trino: bool = True
    rates: Rates = Rates()


FULL: Final = Sizes()
QUICK: Final = Sizes(seeds=(7,), kills=8, origins=3, batches_per_s=10.0, drain_within_s=150.0, trino=False)


class Seen(Struct, frozen=True):
    """One run. `curve`: events acknowledged over the seconds of the flow."""

    seed: int
    killed: tuple[Killed, ...]
    stages: dict[str, int]
    faults: dict[str, int]
    ledger: Ledger
    accounts: dict[str, Account]
    trino_rows: dict[str, int]
    flow_s: float
    drain_s: float
    began_s: float
    curve: list[tuple[float, float]]


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Run with every seed."""
    sizes = msgspec.structs.replace(sizes, kills=_kills_wanted(sizes.kills))
    runs = [_run(seed, sizes, tell) for seed in sizes.seeds]
    accounts = [account for seen in runs for account in seen.accounts.values()]
    figures: Figures = {
        "chaos_kills": sum(len(seen.killed) for seen in runs),
        "chaos_lost": sum(account.lost for account in accounts),
        "chaos_doubled": sum(account.doubled for account in accounts),
        "chaos_strange": sum(account.strange for account in accounts),
        "chaos_events": sum(account.sent for account in accounts),
        "chaos_faults": sum(sum(seen.faults.values()) for seen in runs),
        "chaos_trino_difference": sum(
            abs(rows - seen.accounts[name].rows) for seen in runs for name, rows in seen.trino_rows.items()
        ),
        "chaos_drain_s": round(max(seen.drain_s for seen in runs), 1),
    }
    _plot(folder / f"{NAME}.png", runs)
    how = {
        "running": "log, catalog, both stores, ingest, maintenance" + (", Trino" if sizes.trino else ""),
        "kinds": KINDS,
        "pauses_s": PAUSE_S,
        "rates": msgspec.to_builtins(sizes.rates),
        "flow": f"{sizes.batches_per_s} batches/s of {sizes.batch_rows} rows into a table of each store",
        "judged": "DuckDB, identity by identity against the devices' ledger; Trino counts rows",
        "runs": [_told(seen) for seen in runs],
    }
    return result(NAME, how, figures)


def _kills_wanted(usual: int) -> int:
    text = os.environ.get(KILLS_VARIABLE, str(usual))
    if not text.isdigit() or int(text) < 1:
        raise OperatorMustActError(f"{KILLS_VARIABLE}: expected a number of kills from 1 on, found {text!r}")
    return int(text)


def _run(seed: int, sizes: Sizes, tell: Tell) -> Seen:
    parts = (*UNDER_INGEST, services.INGEST, services.MAINTENANCE, *((TRINO,) if sizes.trino else ()))
    chosen = (workload.readings("chaos_field"), workload.readings("chaos_behaviour", "lake_b", "behaviour"))
    with ground(tell, parts) as place:
        stores = (place.endpoints.store_a.endpoint_url, place.endpoints.store_b.endpoint_url)
        with S3Proxy(stores[0], seed) as proxy_a, S3Proxy(stores[1], seed + 1) as proxy_b:
            proxies = (proxy_a, proxy_b)
            _route(place, dict(zip(stores, (proxy.url for proxy in proxies), strict=True)))
            place.publish(*chosen)
            for contract in chosen:
                watch = TableWatch(place, contract)
                watch.await_table()
                watch.close()
            devices = Resending(place, _job(place, chosen, sizes, seed))
            try:
                return _flow(place, chosen, proxies, devices, seed, sizes)
            finally:
                devices.kill()


def _flow(
    place: Ground,
    chosen: tuple[Contract, ...],
    proxies: tuple[S3Proxy, S3Proxy],
    devices: Resending,
    seed: int,
    sizes: Sizes,
) -> Seen:
    killer = Killer(place, proxies)
    with (
        Marks(place.endpoints.kafka.bootstrap) as marks,
        Sampler(lambda: {"events": sum(marks.events(c.id) for c in chosen)}, SAMPLE_EVERY_S) as sampler,
    ):
        marks.await_events({contract.id: 1 for contract in chosen}, FIRST_MARK_WITHIN_S)
        for proxy in proxies:
            proxy.rates = sizes.rates
        began_s = time.time()
        place.tell(f"{sizes.kills} kills by seed {seed}, about {expected_s(sizes.kills):.0f} s ...")
        killed = tuple(killer.carry_out(plan(seed, sizes.kills), lambda text: place.tell(f"    {text}")))
        flow_s = time.time() - began_s
        place.tell(f"{sum(marks.events(c.id) for c in chosen):,} events acknowledged; draining ...")
        ledger = devices.finish()
        drain_s = time.time() - began_s - flow_s
    accounts = {contract.id: judge.account(place.endpoints, contract, ledger.sent(contract.id)) for contract in chosen}
    place.tell(f"verdict: {accounts}")
    return Seen(
        seed,
        killed,
        killer.stages,
        _faults(proxies),
        ledger,
        accounts,
        {contract.id: _trino_rows(place, contract) for contract in chosen} if sizes.trino else {},
        round(flow_s, 1),
        round(drain_s, 1),
        began_s,
        sampler.series("events", began_s),
    )


def _faults(proxies: tuple[S3Proxy, ...]) -> dict[str, int]:
    total: Counter[Fault] = Counter()
    for proxy in proxies:
        total += proxy.faults
    return {fault.value: count for fault, count in total.items() if fault is not Fault.NONE}


def _route(place: Ground, urls: dict[str, str]) -> None:
    """Let ingest and maintenance reach the stores by other addresses, now and after every restart."""
    supervisor = Supervisor(place.settings)
    names = [name for name in supervisor.states() if name.startswith((services.INGEST, services.MAINTENANCE))]
    for name in names:
        path = services.config_path(place.context, name)
        if not path.exists():
            continue
        supervisor.stop(name)
        text = path.read_text()
        for store, proxy in urls.items():
            text = text.replace(store, proxy)
        write_file(path, text.encode())
        supervisor.start(name)


def _job(place: Ground, chosen: tuple[Contract, ...], sizes: Sizes, seed: int) -> Job:
    return Job(
        place.endpoints.kafka.bootstrap,
        tuple(contracts.encode(contract) for contract in chosen),
        sizes.origins,
        sizes.batches_per_s,
        sizes.batch_rows,
        seed,
        str(place.folder / "resend.stop"),
        sizes.drain_within_s,
    )


def _trino_rows(place: Ground, contract: Contract) -> int:
    with trino_client(place.endpoints) as client:
        (row,) = client.query(f"SELECT count(*) FROM {contract.catalog}.{contract.table}").rows
    return int(str(row[0]))


def _told(seen: Seen) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(seen)
    told["killed"] = dict(Counter(one.kind for one in seen.killed))
    told["ledger"].pop("events")
    return {name: value for name, value in told.items() if name not in ("curve", "began_s")}


def _plot(path: Path, runs: list[Seen]) -> None:
    shown: list[tuple[str, str, str, Lines]] = []
    for seen in runs:
        marks: Lines = {kind: _at(seen, kind) for kind in KINDS}
        shown.append((f"kills by seed {seen.seed}", "s", "events acknowledged", {"events": seen.curve, **marks}))
    panels(path, shown, dots=True)


def _at(seen: Seen, kind: str) -> list[tuple[float, float]]:
    """Return a point on the curve for each kill of a kind."""
    found = []
    for one in seen.killed:
        if one.kind == kind:
            second = one.at_s - seen.began_s
            height = max((events for at_s, events in seen.curve if at_s <= second), default=0.0)
            found.append((second, height))
    return found
