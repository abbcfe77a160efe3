"""The demo, in order.

1. start       the stack starts while data sets, filter and bundle are made beside it.
2. provision   contracts and dictionaries are published, the CRM is seeded, two rules are applied.
3. flow        the fleet replays; freshness, decisions and the history endpoint are watched.
4. queries     200 three-source queries while data still flows.
5. faults      half-way an agent, the ingest process and the broker are killed with kill -9; a third rule is applied.
6. drain       every agent ends when the lake's watermark covers its last event, and leaves its ledger.
7. verdict     tables against files, row by row; ledgers; decisions against what was scripted.
8. report      one page, the same as JSON, plots beside it. The stack is stopped.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil
from msgspec import Struct

from contracts.decisions import Decision
from contracts.errors import OperatorMustActError
from infra.demo.decisions import expected_decisions, judge_decisions
from infra.demo.fleet import Fleet, Member, members_of
from infra.demo.material import Material, MaterialProcess
from infra.demo.observers import Observer
from infra.demo.progress import Steps
from infra.demo.tables import LakeReader
from infra.demo.verdict import Verdict, judge
from infra.demo.watch import (
    DecisionWatch,
    assets_of,
    first_assets,
    replayed_time,
    rest_warmer,
    three_source_query,
    wait_until,
    warm,
    watch_freshness,
    watch_history,
    watch_memory,
    watch_queries,
)
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.settings import StackSettings
from infra.launcher.status import StackStatus, status_of
from infra.provision import HELD_BACK_RULES, apply_rules, provision, shipped_rules

FLOW_S: Final = 115.0  # s in which collectors and tablets replay: freshness, faults and 200 queries fit into it
# Shares of the flow at which things begin. Machines come after the query engine's coldest moments: twenty interpreters
# that start take two cores for half a minute, in which a cold engine answers nothing.
MACHINES_FROM: Final = 0.2
FRESHNESS_FROM: Final = 0.35
QUERIES_FROM: Final = 0.5
FAULTS_AT: Final = 0.52
MACHINES: Final = "telemetry"
# Shares of the flow that their files last: what is left is for the start of their interpreters, side by side.
COLLECTORS_FLOW: Final = 0.9
MACHINES_FLOW: Final = 0.55
HISTORY_ASSETS: Final = 200  # assets that the history endpoint is asked about, the first that the tablets send
QUERIES: Final = 200
QUERY_ASSETS: Final = 40  # assets, and so accounts, that the queries rotate over
DRAIN_WITHIN_S: Final = 120.0  # s after the flow; an agent that is not drained by then has lost something
DECISIONS_WITHIN_S: Final = 30.0  # s after the drain until every scripted decision must be there
VICTIM: Final = "press-07"
KILLED_PARTS: Final = ("ingest", "mosquitto")
PROBED_ORIGIN: Final = "web-01"
PROBED_TABLE: Final = "lake_b.behaviour.clicks"


class Outcome(Struct, frozen=True):
    """Everything a run has measured; `report` turns it into a page."""

    material: Material
    ledgers: dict[str, dict[str, Any]]
    verdict: Verdict
    decisions: tuple[Decision, ...]
    missing_decisions: tuple[str, ...]
    wrong_decisions: tuple[str, ...]
    latencies_ms: dict[str, list[float]]
    freshness_timeline: tuple[tuple[float, float], ...]
    faults_at_s: dict[str, float]
    observer_errors: dict[str, list[str]]
    queries_before: int
    agent_pss_mb: dict[str, float]
    status: StackStatus
    stack_start_s: float
    seconds: dict[str, float]


def run(settings: StackSettings, tell: Callable[[str], None], fraction: float = 1.0, flow_s: float = FLOW_S) -> Outcome:
    """Run all of it on a fresh state folder; the stack is stopped whatever happens."""
    launcher = Launcher(settings, progress=lambda part, text: tell(f"    {part:>12}  {text}"))
    launcher.down()
    shutil.rmtree(settings.state_dir, ignore_errors=True)
    steps = Steps(tell)
    fleet: Fleet | None = None
    try:
        with steps.step("start"):
            material, stack_start_s = _start(launcher, settings.state_dir / "material", fraction)
        endpoints = read_endpoints(endpoints_file(settings))
        with steps.step("provision"):
            provision(endpoints, material.bundle, material.bundle_dir, material.datasets_dir / "crm")
            apply_rules(
                endpoints.kafka.bootstrap,
                [rule for name, rule in shipped_rules().items() if name not in HELD_BACK_RULES],
            )
        members = members_of(
            material.manifest,
            material.datasets_dir,
            lambda contract: flow_s * (MACHINES_FLOW if contract == MACHINES else COLLECTORS_FLOW),
        )
        fleet = Fleet(endpoints, material.bundle_dir, members)
        watched = _flow(endpoints, fleet, steps, material, flow_s)
        with steps.step("verdict"):
            verdict = _verdict(endpoints, material, members, watched.ledgers)
        return _outcome(settings, material, fleet, watched, verdict, steps, stack_start_s)
    finally:
        if fleet is not None:
            fleet.stop()
        with steps.step("stop"):
            launcher.down()


class _Watched(Struct, frozen=True):
    ledgers: dict[str, dict[str, Any]]
    observers: dict[str, Observer]
    decisions: DecisionWatch
    missing: tuple[str, ...]
    wrong: tuple[str, ...]
    faults_at_s: dict[str, float]
    flow_began_s: float
    queries_before: int
    status: StackStatus


def _start(launcher: Launcher, folder: Path, fraction: float) -> tuple[Material, float]:
    making = MaterialProcess(folder, fraction)
    try:
        began = time.monotonic()
        launcher.up()
        seconds = time.monotonic() - began
        return making.finish(), round(seconds, 1)
    except BaseException:
        making.kill()
        raise


def _flow(endpoints: Endpoints, fleet: Fleet, steps: Steps, material: Material, flow_s: float) -> _Watched:
    settings = endpoints.settings()
    with steps.step("flow"):
        decisions = DecisionWatch(endpoints).start()
        began_s = fleet.start(lambda member: member.contract != MACHINES)
        observers = {"memory": watch_memory(fleet).start()}
        assets = assets_of(material.datasets_dir / "crm", QUERY_ASSETS)
        anytime = three_source_query(endpoints, lambda: datetime.now(UTC))
        warmed = warm(
            endpoints, anytime, assets, (PROBED_TABLE, PROBED_ORIGIN), until_s=began_s + flow_s * MACHINES_FROM
        )
        fleet.start(lambda member: member.contract == MACHINES)
        wait_until(began_s + flow_s * FRESHNESS_FROM)
        observers |= _watch_freshness_and_history(endpoints, fleet, began_s + flow_s * QUERIES_FROM)
        queries_before = rest_warmer(endpoints) + warmed
        clicks = [member.file for member in fleet.members if member.contract == "clicks"]
        query = three_source_query(endpoints, replayed_time(clicks, began_s, flow_s))
        observers["federated"] = watch_queries(query, assets, QUERIES).start()
        wait_until(began_s + flow_s * FAULTS_AT)
        status = status_of(settings)
        faults_at_s = _kill(settings, fleet, steps, began_s)
        apply_rules(endpoints.kafka.bootstrap, [shipped_rules()[name] for name in HELD_BACK_RULES])
        observers["federated"].wait(max(1.0, began_s + flow_s - time.time()))
        observers["federated"].stop()
    with steps.step("drain"):
        ledgers = fleet.ledgers(max(1.0, began_s + flow_s - time.time()) + DRAIN_WITHIN_S)
        observers["memory"].stop()
        expected = expected_decisions(material.datasets_dir)
        decisions.wait_for(lambda made: not judge_decisions(expected, made)[0], DECISIONS_WITHIN_S)
        decisions.stop()
    missing, wrong = judge_decisions(expected, [decision for decision, _ in decisions.received])
    return _Watched(ledgers, observers, decisions, missing, wrong, faults_at_s, began_s, queries_before, status)


def _watch_freshness_and_history(endpoints: Endpoints, fleet: Fleet, until_s: float) -> dict[str, Observer]:
    tablets = [member.file for member in fleet.members if member.contract == "service_history"]
    observers = {
        "freshness": watch_freshness(endpoints, PROBED_TABLE, PROBED_ORIGIN).start(),
        "history": watch_history(endpoints, first_assets(tablets, HISTORY_ASSETS)).start(),
    }
    wait_until(until_s)
    for observer in observers.values():
        observer.stop()
    return observers


def _kill(settings: StackSettings, fleet: Fleet, steps: Steps, began_s: float) -> dict[str, float]:
    """kill -9 an agent, the ingest process and the broker; the agent is started again here, the others are by their
    supervisor."""
    pids = {part.name: part.pid for part in status_of(settings).parts}
    at_s: dict[str, float] = {}
    for name in KILLED_PARTS:
        pid = pids[name]
        if pid is None:
            raise OperatorMustActError(f"part {name}: expected it running half-way, found none; see its log")
        steps.tell(f"    kill -9 {name} (pid {pid})")
        psutil.Process(pid).kill()
        at_s[name] = round(time.time() - began_s, 1)
    steps.tell(f"    kill -9 agent {VICTIM} (pid {fleet.agents[VICTIM].pid}), and start it again")
    fleet.kill_and_restart(VICTIM)
    at_s[VICTIM] = round(time.time() - began_s, 1)
    return at_s


def _verdict(
    endpoints: Endpoints, material: Material, members: Sequence[Member], ledgers: dict[str, dict[str, Any]]
) -> Verdict:
    with LakeReader(endpoints) as reader:
        replays = [(member.contract, member.device, member.file) for member in members]
        return judge(reader, material.bundle, material.bundle_dir, replays, ledgers)


def _outcome(
    settings: StackSettings,
    material: Material,
    fleet: Fleet,
    watched: _Watched,
    verdict: Verdict,
    steps: Steps,
    stack_start_s: float,
) -> Outcome:
    latencies = {name: watched.observers[name].latencies_ms() for name in ("freshness", "federated", "history")}
    began_ms = watched.flow_began_s * 1_000
    return Outcome(
        material=material,
        ledgers=watched.ledgers,
        verdict=verdict,
        decisions=tuple(decision for decision, _ in watched.decisions.received),
        missing_decisions=watched.missing,
        wrong_decisions=watched.wrong,
        latencies_ms={**latencies, "decision": watched.decisions.latencies_ms()},
        freshness_timeline=tuple(
            ((s.at_ms - began_ms) / 1_000, s.latency_ms) for s in watched.observers["freshness"].samples
        ),
        faults_at_s=watched.faults_at_s,
        observer_errors={name: observer.errors for name, observer in watched.observers.items()},
        queries_before=watched.queries_before,
        agent_pss_mb=fleet.pss_mb,
        status=watched.status,
        stack_start_s=stack_start_s,
        seconds=steps.seconds,
    )
