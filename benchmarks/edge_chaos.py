"""The running stack under kill -9: five agents replay a real record while agent, broker, gateway and ingest are killed.

1. start    a stack of its own, as `make demo` starts it; readings, filter and bundle.
2. flow     five agents replay; at random moments one of them, the broker, the gateway or the ingest process is killed.
3. drain    every agent ends when the lake's watermark covers its last event, and leaves its ledger.
4. verdict  rows against files, one by one and value by value; windows; the lake's ledger against the agents'.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from msgspec import Struct

from benchmarks.chaos.kills import PAUSE_S, Killed, carry_out, expected_s, plan
from benchmarks.chaos.readings import TELEMETRY, Readings, keep_a_share, make_readings
from benchmarks.chaos.timeline import RowWatch, draw
from benchmarks.result import RESULTS_DIR, Figures, Result, result
from benchmarks.steady import free_port_base
from contracts.bundle import Bundle
from contracts.errors import OperatorMustActError
from infra.demo.fleet import Fleet
from infra.demo.material import make_material
from infra.demo.progress import Steps
from infra.demo.tables import LakeReader
from infra.demo.verdict import Verdict, judge
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.settings import StackSettings
from infra.provision import provision

KILLS: Final = 200
KILLS_VARIABLE: Final = "FIELDLAKE_CHAOS_KILLS"  # fewer, to try it out; the result says how many
SEED: Final = 20_261_122
FLOW_MARGIN: Final = 1.15  # of the time that the kills take: the last of them must find agents at work
FLOW_S_MIN: Final = 60.0  # s; five interpreters need some to start
TOLD_EVERY: Final = 10  # kills
DRAIN_WITHIN_S: Final = 600.0  # s; resends double up to five minutes while nothing is acknowledged
MATERIAL_FRACTION: Final = 0.05  # of the demo's data sets: only its filter is needed


class Run(Struct, frozen=True):
    """What a run has seen."""

    killed: tuple[Killed, ...]
    ledgers: dict[str, dict[str, Any]]
    verdict: Verdict


def run(tell: Callable[[str], None]) -> Result:
    """Run all of it; the stack is stopped whatever happens."""
    kills = _kills_wanted()
    steps = Steps(tell)
    with TemporaryDirectory(prefix="fieldlake-chaos-") as name:
        folder = Path(name)
        settings = StackSettings(state_dir=folder / "state", port_base=free_port_base())
        launcher = Launcher(settings)
        try:
            with steps.step("start"):
                launcher.up()
            with steps.step("provision"):
                material = make_material(folder / "material", MATERIAL_FRACTION)
                readings = make_readings(folder / "readings", material.manifest, material.datasets_dir)
                bundle = keep_a_share(material, readings, folder / "bundle")
                endpoints = read_endpoints(endpoints_file(settings))
                provision(endpoints, bundle, folder / "bundle", material.datasets_dir / "crm")
            seen = _flow(settings, endpoints, bundle, folder / "bundle", readings, kills, steps)
        finally:
            with steps.step("stop"):
                launcher.down()
    return _result(seen, readings, steps)


def _kills_wanted() -> int:
    text = os.environ.get(KILLS_VARIABLE, str(KILLS))
    if not text.isdigit() or int(text) < 1:
        raise OperatorMustActError(f"{KILLS_VARIABLE}: expected a number of kills from 1 on, found {text!r}")
    return int(text)


def _flow(
    settings: StackSettings,
    endpoints: Endpoints,
    bundle: Bundle,
    bundle_dir: Path,
    readings: Readings,
    kills: int,
    steps: Steps,
) -> Run:
    flow_s = max(FLOW_S_MIN, expected_s(kills) * FLOW_MARGIN)
    members = readings.members(flow_s)
    planned = plan(SEED, kills, len(members))
    fleet = Fleet(endpoints, bundle_dir, members)
    watch = RowWatch(endpoints, bundle.contract(TELEMETRY))
    killed: list[Killed] = []
    try:
        with steps.step("flow"):
            steps.tell(f"    {readings.rows} readings in {flow_s:.0f} s, {kills} kills by seed {SEED}")
            began_s = fleet.start()
            watch.start()
            for one in carry_out(planned, fleet, settings, lambda text: steps.tell(f"    {text}")):
                killed.append(one)
                if len(killed) % TOLD_EVERY == 0:
                    steps.tell(f"    {watch.rows} rows in the lake")
        with steps.step("drain"):
            left_s = max(0.0, began_s + flow_s - time.time())
            ledgers = fleet.ledgers(left_s + DRAIN_WITHIN_S)
        with steps.step("verdict"), LakeReader(endpoints) as reader:
            replays = [(member.contract, member.device, member.file) for member in members]
            verdict = judge(reader, bundle, bundle_dir, replays, ledgers)
    finally:
        watch.stop()
        fleet.stop()
    draw(RESULTS_DIR / "edge-chaos.png", began_s, watch.moments, killed)
    return Run(tuple(killed), ledgers, verdict)


def _result(seen: Run, readings: Readings, steps: Steps) -> Result:
    verdict = seen.verdict
    sums = [ledger["streams"][TELEMETRY] for ledger in seen.ledgers.values()]
    figures: Figures = {
        "chaos_kills": len(seen.killed),
        "chaos_lost": verdict.rows_lost,
        "chaos_doubled": verdict.rows_doubled,
        "chaos_unexplained": verdict.unexplained,
        "chaos_ledger_difference": _difference(verdict),
        "chaos_events": sum(one["observed"] for one in sums),
        "chaos_rows": sum(comparison.found for comparison in verdict.tables.values()),
        "chaos_resends": sum(ledger["resends"] for ledger in seen.ledgers.values()),
        "chaos_flow_s": steps.seconds["flow"],
        "chaos_drain_s": steps.seconds["drain"],
    }
    how = {
        "input": readings.source,
        "input_rows": readings.rows,
        "agents": len(readings.files),
        "seed": SEED,
        "kills": dict(Counter(one.kind for one in seen.killed)),
        "pauses_s": PAUSE_S,
        "restarts": "the supervisor starts broker, gateway and ingest again, the benchmark starts agents again at once",
        "judged": "with DuckDB over the table files: every row against the replayed files and the filter run apart "
        "from the agents, value by value; what windows counted; the lake's ledger against the agents' ledgers",
        "tables": {name: msgspec.to_builtins(comparison) for name, comparison in verdict.tables.items()},
        "windows_expected": verdict.windows_expected,
        "windows_counted": verdict.windows_counted,
        "ledger_in_lake": verdict.ledger_in_lake,
        "ledger_of_agents": verdict.ledger_of_agents,
        "chaos_resends": "of the last process of each agent",
        "seconds": steps.seconds,
    }
    return result("edge-chaos", how, figures)


def _difference(verdict: Verdict) -> int:
    names = verdict.ledger_in_lake.keys() | verdict.ledger_of_agents.keys()
    return sum(abs(verdict.ledger_in_lake.get(n, 0) - verdict.ledger_of_agents.get(n, 0)) for n in names)
