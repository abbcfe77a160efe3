"""From an MQTT publish to a row that Trino shows, under 100,000 events/s; and the asset history meanwhile.

1. start    the whole stack; a service history of some years lies in its table.
2. warm up  the flow and the looks, not measured: a Trino JVM warms over thousands of queries.
3. flow     devices publish over MQTT by a schedule. One look after the other asks Trino for every batch that is still
            missing; a batch's latency runs from the moment it was due to the end of the first look that shows it.
            Meanwhile service entries come in too, and the history of one asset after the other is asked for over HTTP;
            the server itself says how long it took (`Server-Timing`).
"""

import re
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.lake import workload
from benchmarks.lake.ground import Ground, Tell, ground
from benchmarks.lake.plots import panels
from benchmarks.lake.publish import Publishing, job_of
from benchmarks.lake.send import Job, Sending, Sent
from benchmarks.lake.sightings import Sightings
from benchmarks.lake.tables import PASSING as TABLE_PASSING
from benchmarks.lake.tables import TableWatch
from benchmarks.lake.workers import Sampler
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from contracts import contract as contracts
from contracts.contract import Contract
from contracts.errors import FieldlakeError, OperatorMustActError
from infra.bundles.documents import read_contracts
from infra.demo.figures import latency
from infra.demo.observers import Observer, Sample, trino_time
from infra.demo.watch import trino_client

NAME: Final = "freshness"
HISTORY: Final = "service_history"
LOOK_PAUSE_S: Final = 0.05  # s between looks; part of what is measured
LOOKUP_PAUSE_S: Final = 0.05  # s; an engineer looks, she does not load-test
SHAPE_EVERY_S: Final = 2.0
POINTS: Final = 5_000  # of the plot
HTTP_TIMEOUT_S: Final = 10.0
HISTORY_WITHIN_S: Final = 300.0
_DURATION: Final = re.compile(r"dur=([0-9.]+)")
PASSING: Final = (FieldlakeError, OSError, httpx.HTTPError)


class Sizes(Struct, frozen=True):
    """The flow, and the history that is asked for."""

    events_per_s: int = 100_000
    batch_rows: int = 200
    devices: int = 20
    warm_up_s: float = 300.0
    measured_s: float = 600.0
    history_batches: int = 2_000
    history_rows: int = 200
    history_per_s: float = 5.0  # batches of 2 entries that come while the history is asked for


FULL: Final = Sizes()
QUICK: Final = Sizes(events_per_s=400, batch_rows=20, devices=2, warm_up_s=5.0, measured_s=10.0, history_batches=5)


class _Measured(NamedTuple):
    """What one run has seen, from `from_s` on."""

    from_s: float
    sightings: Sightings
    sent: Sent
    shapes: Sampler
    looking: Observer
    asking: Observer
    lookups: "Lookups"


def run(tell: Tell, sizes: Sizes = FULL, folder: Path = RESULTS_DIR) -> Result:
    """Measure both."""
    live = workload.readings("bench_live")
    shipped = {contract.id: contract for contract in read_contracts()}
    with ground(tell) as place:
        place.publish(*(one for one in shipped.values() if one.id != "quarantine"), live)
        watch = TableWatch(place, live)
        watch.await_table()
        lookups = Lookups(place, _fill_history(place, shipped[HISTORY], sizes))
        flow_s = sizes.warm_up_s + sizes.measured_s
        rate = sizes.events_per_s / sizes.batch_rows
        publishing = Publishing(place, job_of(place, live, "live", sizes.devices, sizes.batch_rows, rate, flow_s))
        entries = Sending(place, _entries(place, shipped[HISTORY], sizes, flow_s))
        try:
            begin_s = publishing.begin_s()
            sightings = Sightings(publishing.job.total, begin_s, rate)
            looking = Observer("freshness", _look(place, live, sizes, sightings), PASSING).start()
            tell(f"{sizes.events_per_s:,} events/s; warming up for {sizes.warm_up_s:.0f} s ...")
            measured_from_s = begin_s + sizes.warm_up_s
            threading.Event().wait(max(0.0, measured_from_s - time.time()))
            with Sampler(watch.shape, SHAPE_EVERY_S, TABLE_PASSING) as shapes:
                asking = Observer("lookups", lookups.ask, PASSING).start()
                sent = publishing.result()
                asking.stop()
                deadline_s = time.time() + 60.0
                while not sightings.is_over and time.time() < deadline_s:
                    threading.Event().wait(0.2)
            looking.stop()
        finally:
            publishing.kill()
            entries.kill()
            watch.close()
        tell(f"{sent.batches} batches, sender behind by {sent.behind_ms_max} ms at most")
    return _told(_Measured(measured_from_s, sightings, sent, shapes, looking, asking, lookups), sizes, folder)


def _told(found: _Measured, sizes: Sizes, folder: Path) -> Result:
    """Return the figures, and draw the plot. Raises OperatorMustActError when nothing was seen."""
    seen, server_ms = found.sightings.latencies_ms(found.from_s), found.lookups.server_ms
    visible = seen[np.isfinite(seen)]
    if not len(visible) or not server_ms:
        raise OperatorMustActError(
            f"freshness: {len(visible)} batches seen, {len(server_ms)} lookups answered: "
            f"{found.looking.errors[:3]} {found.asking.errors[:3]}"
        )
    spread, served = latency(visible.tolist()), latency(server_ms)
    figures: Figures = {
        "freshness_p50_ms": spread.p50_ms,
        "freshness_p99_ms": spread.p99_ms,
        "freshness_max_ms": spread.max_ms,
        "never_seen": len(seen) - len(visible),
        "lookup_p99_ms": served.p99_ms,
        "lookup_p50_ms": served.p50_ms,
    }
    shape = {key: found.shapes.series(key, found.from_s) for key in ("files", "snapshots")}
    points = {"batch": found.sightings.points(found.from_s, POINTS)}
    panels(
        folder / f"{NAME}.png",
        [("from publish to Trino", "s", "ms", points), ("the table meanwhile", "s", "", shape)],
        dots=True,
    )
    how = {
        "sizes": msgspec.to_builtins(sizes),
        "running": "the whole stack, the senders and this reader on the same machine",
        "batches": len(seen),
        "looks": found.looking.calls,
        "look_pause_ms": LOOK_PAUSE_S * 1_000,
        "sender_behind_ms_max": found.sent.behind_ms_max,
        "lookups": msgspec.to_builtins(served) | {"at": "the server, by its Server-Timing header"},
        "lookups_at_client_ms": msgspec.to_builtins(latency(found.asking.latencies_ms())),
        "errors": {"looks": found.looking.errors, "lookups": found.asking.errors},
    }
    return result(NAME, how, figures)


def _look(place: Ground, live: Contract, sizes: Sizes, sightings: Sightings) -> Callable[[], list[Sample]]:
    """Return a look for all batches that are missing: the first row of each, none of the others."""
    client, pause = trino_client(place.endpoints), threading.Event()
    table = f"{live.catalog}.{live.table}"

    def look() -> list[Sample]:
        pause.wait(LOOK_PAUSE_S)
        from_ms = sightings.look_from_ms(time.time())
        found = client.query(
            f"SELECT origin, seq FROM {table} "
            f"WHERE sealed_at >= {trino_time(from_ms * 1_000)} AND seq % {sizes.batch_rows} = 0"
        ).rows
        now_s = time.time()
        sightings.take(
            (
                int(seq) // sizes.batch_rows * sizes.devices + int(str(origin).rpartition("-")[2])
                for origin, seq in found
            ),
            now_s,
        )
        return []

    return look


class Lookups:
    """Asks the history endpoint for one asset after the other; `server_ms` is what the server says of each."""

    def __init__(self, place: Ground, assets: list[str]) -> None:
        target = place.endpoints.history
        self.server_ms: list[float] = []
        self._assets, self._turn = assets, 0
        self._pause = threading.Event()
        self._client = httpx.Client(
            base_url=target.url,
            headers={"Authorization": f"Bearer {target.token}"},
            verify=ssl.create_default_context(cafile=target.ca_file),
            timeout=HTTP_TIMEOUT_S,
            trust_env=False,
        )

    def ask(self) -> list[Sample]:
        """Ask once; the sample is the time at the client."""
        self._pause.wait(LOOKUP_PAUSE_S)
        asset = self._assets[self._turn % len(self._assets)]
        self._turn += 1
        began_s = time.perf_counter()
        answer = self._client.get(f"/v1/assets/{quote(asset)}/history").raise_for_status()
        at_client_ms = (time.perf_counter() - began_s) * 1_000
        timing = _DURATION.search(answer.headers.get("server-timing", ""))
        if timing is None:
            raise OperatorMustActError(f"history: expected a Server-Timing header, found {dict(answer.headers)}")
        self.server_ms.append(float(timing[1]))
        return [Sample(time.time() * 1_000, at_client_ms)]


def _fill_history(place: Ground, contract: Contract, sizes: Sizes) -> list[str]:
    """Let the lake have a service history, and return the assets in it, once Trino shows all of it."""
    job = Job(
        place.endpoints.kafka.bootstrap,
        contracts.encode(contract),
        "tablet",
        1,
        sizes.history_batches,
        sizes.history_rows,
    )
    watch = TableWatch(place, contract)
    watch.await_table()
    watch.close()
    place.tell(f"{job.events:,} entries of a service history ...")
    Sending(place, job).result()
    client, pause = trino_client(place.endpoints), threading.Event()
    table = f"{contract.catalog}.{contract.table}"
    deadline_s = time.time() + HISTORY_WITHIN_S
    while True:
        try:
            (row,) = client.query(f"SELECT count(*) FROM {table}").rows
            if int(str(row[0])) >= job.events:
                return [str(one[0]) for one in client.query(f"SELECT DISTINCT asset_id FROM {table}").rows]
        except PASSING as error:
            place.tell(f"waiting for the history: {error}")
        if time.time() > deadline_s:
            raise OperatorMustActError(f"{table}: expected {job.events} rows within {HISTORY_WITHIN_S:.0f} s")
        pause.wait(1.0)


def _entries(place: Ground, contract: Contract, sizes: Sizes, flow_s: float) -> Job:
    return Job(
        place.endpoints.kafka.bootstrap,
        contracts.encode(contract),
        "technician",
        1,
        max(1, round(flow_s * sizes.history_per_s)),
        2,
        rate_batches_per_s=sizes.history_per_s,
    )
