"""A stack under a steady flow: collectors replay at a fixed rate while the probe and the readers measure."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
from msgspec import Struct

from benchmarks.probe import Probe
from infra.datasets import FileEntry
from infra.demo.fleet import Fleet, Member
from infra.demo.material import Material, make_material
from infra.demo.watch import (
    DecisionWatch,
    assets_of,
    first_assets,
    replayed_time,
    rest_warmer,
    three_source_query,
    warm,
    watch_freshness,
    watch_history,
    watch_queries,
)
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.settings import PORTS_SPAN, StackSettings
from infra.provision import apply_rules, provision, shipped_rules

EVENTS_PER_S: Final = 1_000
FLOWING: Final = ("purchases", "clicks")  # two collectors each
HISTORY: Final = "service_history"
RATE_EVENTS_PER_S: Final = EVENTS_PER_S // (2 * len(FLOWING))
WARM_UP_S: Final = 600.0  # s of flow before anything is measured: a Trino JVM warms over thousands of queries
PROBED_DEVICE: Final = "probe-01"
PROBED_TABLE: Final = "lake_a.field.telemetry"
PROBE_INTERVAL_MS: Final = 200
PROBE_BATCHES: Final = 600
QUERIES: Final = 200
QUERY_ASSETS: Final = 40
QUERIES_WITHIN_S: Final = 180.0
HISTORY_ASSETS: Final = 200
HISTORY_S: Final = 60.0
PORT_BASES: Final = range(26_000, 32_000, PORTS_SPAN)


class Steady(Struct, frozen=True):
    """All latencies in ms by what was asked, and how they came about."""

    latencies_ms: dict[str, list[float]]
    how: dict[str, Any]


def measure_steady(tell: Callable[[str], None], warm_up_s: float = WARM_UP_S) -> Steady:
    """Start a stack, let it warm up under the flow, measure, stop it."""
    with TemporaryDirectory(prefix="fieldlake-steady-") as folder:
        settings = StackSettings(state_dir=Path(folder) / "state", port_base=free_port_base())
        launcher = Launcher(settings)
        try:
            tell("steady: starting a stack ...")
            launcher.up()
            material = make_material(Path(folder) / "material")
            endpoints = read_endpoints(endpoints_file(settings))
            provision(endpoints, material.bundle, material.bundle_dir, material.datasets_dir / "crm")
            apply_rules(endpoints.kafka.bootstrap, shipped_rules().values())
            return _measure(endpoints, material, tell, warm_up_s)
        finally:
            launcher.down()


def _measure(endpoints: Endpoints, material: Material, tell: Callable[[str], None], warm_up_s: float) -> Steady:
    measure_s = PROBE_BATCHES * PROBE_INTERVAL_MS / 1_000 + QUERIES_WITHIN_S
    fleet = Fleet(endpoints, material.bundle_dir, _members(endpoints, material, warm_up_s + 2 * measure_s))
    decisions = DecisionWatch(endpoints)
    try:
        fleet.start()
        tell(f"steady: {EVENTS_PER_S} events/s, warming up for {warm_up_s:.0f} s ...")
        ask, assets = _three_sources(endpoints, material)
        asked = warm(endpoints, ask, assets, (PROBED_TABLE, PROBED_DEVICE), until_s=time.time() + warm_up_s)
        before = rest_warmer(endpoints) + asked
        decisions.start()
        telemetry = material.bundle.contract("telemetry")
        probe = Probe(endpoints, telemetry, PROBED_DEVICE, PROBE_INTERVAL_MS, PROBE_BATCHES)
        freshness = watch_freshness(endpoints, PROBED_TABLE, probe.device).start()
        tell("steady: freshness and decisions ...")
        probe.start().wait()
        threading.Event().wait(5.0)
        freshness.stop()
        tell("steady: the three-source query ...")
        federated = watch_queries(ask, assets, QUERIES).start()
        federated.wait(QUERIES_WITHIN_S)
        federated.stop()
        tell("steady: the history endpoint ...")
        tablets = [material.datasets_dir / e.path for e in _replayed(material, HISTORY)]
        history = watch_history(endpoints, first_assets(tablets, HISTORY_ASSETS)).start()
        threading.Event().wait(HISTORY_S)
        history.stop()
    finally:
        fleet.stop()
        decisions.stop()
    mine = [(d, at) for d, at in decisions.received if d.subject.startswith(probe.device)]
    how = {
        "flow": f"agents replay {' and '.join(FLOWING)}, together {EVENTS_PER_S} events/s, and two tablets the service "
        "history, once over the whole run, on the same machine",
        "warm_up_s": warm_up_s,
        "warm_up": "the flow, the launcher's warmer and the same queries in a row; the warmer is stopped then",
        "queries_before": before,
        "freshness": f"probe: {PROBE_BATCHES} batches of 3 rows, one every {PROBE_INTERVAL_MS} ms; from the "
        "scheduled send to the end of the first SELECT that shows it, polled 100 ms apart",
        "decision": "the same batches, each completes a rule; from the scheduled send to receipt by a reader",
        "probe_behind_schedule_ms_max": round(probe.behind_ms_max, 1),
        "probe_batches": PROBE_BATCHES,
        "probe_decisions": len(mine),
        "federated": f"{QUERIES} runs of the canned query account_situation over {QUERY_ASSETS} accounts, in turn",
        "history": f"GET over one kept-alive TLS connection, {HISTORY_ASSETS} assets in turn, 50 ms apart",
        "load_1_min": psutil.getloadavg()[0],
        "errors": {o.name: o.errors for o in (freshness, federated, history)},
    }
    return Steady(
        {
            "freshness": freshness.latencies_ms(),
            "decision": [at - d.sealed_at_ms for d, at in mine],
            "federated": federated.latencies_ms(),
            "history": history.latencies_ms(),
        },
        how,
    )


def _three_sources(
    endpoints: Endpoints, material: Material
) -> tuple[Callable[[tuple[str, str]], object], list[tuple[str, str]]]:
    """Return the three-source query and what to ask it about."""
    clicks = [material.datasets_dir / e.path for e in _replayed(material, "clicks")]
    now = replayed_time(clicks, began_s=0.0, flow_s=1.0)  # the end of the record, which is replayed again and again
    return three_source_query(endpoints, now), assets_of(material.datasets_dir / "crm", QUERY_ASSETS)


def _members(endpoints: Endpoints, material: Material, seconds: float) -> list[Member]:
    """Return collectors whose files last for the whole run, made of the data sets again and again."""
    state_dir = Path(endpoints.state_dir)
    members = []
    for contract in FLOWING:
        source = _replayed(material, contract)
        text = b"".join((material.datasets_dir / e.path).read_bytes() for e in source)
        times = math.ceil(seconds * RATE_EVENTS_PER_S / sum(e.rows for e in source))
        file = state_dir / f"{contract}-repeated.jsonl"
        file.write_bytes(text * times)
        # A member's rate is its rows over the flow's seconds: with a second's rows, over a flow of one second.
        members += [Member(f"bench-{contract}-{n}", contract, file, RATE_EVENTS_PER_S, 1.0) for n in (1, 2)]
    members += [
        Member(f"bench-tablet-{n}", HISTORY, material.datasets_dir / e.path, e.rows, seconds)
        for n, e in enumerate(_replayed(material, HISTORY), 1)
    ]
    return members


def _replayed(material: Material, contract: str) -> list[FileEntry]:
    return [e for e in material.manifest.files if e.contract == contract and e.role == "replay"]


def free_port_base() -> int:
    """Return a base whose ports nobody listens on."""
    taken = {c.laddr[1] for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr}
    free = (base for base in PORT_BASES if not taken.intersection(range(base, base + PORTS_SPAN)))
    return next(free)
