"""One page about a run, the same as JSON, and plots beside it."""

import platform
from pathlib import Path
from typing import Any, Final

import msgspec

from infra.demo.figures import REACH, latency, reached
from infra.demo.plots import bars, distributions, timeline
from infra.demo.run import Outcome

AIMS_MS: Final = {"freshness": 1_500.0, "decision": 500.0, "federated": 300.0, "history": 50.0}
AGENT_WITH_MODEL: Final = "telemetry"


def figures_of(outcome: Outcome) -> dict[str, float | None]:
    """Return every figure by its key; a figure that this run does not measure is None."""
    holdout = outcome.material.card.holdout
    wire = _wire(outcome)
    spread = {name: latency(samples) for name, samples in outcome.latencies_ms.items()}
    return {
        "agent_pss_mb": round(max(outcome.agent_pss_mb.values(), default=float("nan")), 1),
        "filter_drop_ratio": round(holdout.drop_ratio.value, 4),
        "filter_recall": round(holdout.recall.value, 4),
        "wire_bytes_per_event": round(wire["packet_bytes"] / max(1, wire["rows"]), 2),
        "json_bytes_per_event": round(wire["json_bytes"] / max(1, wire["rows"]), 2),
        "wire_to_json_ratio": round(wire["packet_bytes"] / max(1, wire["json_bytes"]), 4),
        "rows_lost": outcome.verdict.rows_lost,
        "rows_doubled": outcome.verdict.rows_doubled,
        "events_unexplained": outcome.verdict.unexplained,
        "freshness_p50_ms": spread["freshness"].p50_ms,
        "freshness_p99_ms": spread["freshness"].p99_ms,
        "decision_p99_ms": spread["decision"].p99_ms,
        "federated_p50_ms": spread["federated"].p50_ms,
        "federated_p95_ms": spread["federated"].p95_ms,
        "history_p99_ms": spread["history"].p99_ms,
        "stack_start_s": outcome.stack_start_s,
        "stack_memory_gb": round(outcome.status.memory_gib, 2),
    }


def held(outcome: Outcome) -> bool:
    """Whether everything that must hold did: nothing lost, doubled or unexplained, every scripted decision right."""
    return outcome.verdict.holds and not outcome.missing_decisions and not outcome.wrong_decisions


def document(outcome: Outcome, figures: dict[str, float | None]) -> dict[str, Any]:
    """Return the report as plain values."""
    return {
        "held": held(outcome),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "figures": figures,
        "aims": {key: f"{aim[0]} {aim[1]:g}" for key, aim in REACH.items() if aim is not None},
        "latencies": {name: msgspec.to_builtins(latency(samples)) for name, samples in outcome.latencies_ms.items()},
        "input": _provenance(outcome),
        "tables": msgspec.to_builtins(outcome.verdict.tables),
        "windows": {"expected": outcome.verdict.windows_expected, "counted": outcome.verdict.windows_counted},
        "ledger": {"lake": outcome.verdict.ledger_in_lake, "agents": outcome.verdict.ledger_of_agents},
        "stages": _stages(outcome),
        "wire": _wire(outcome),
        "decisions": {
            "made": len(outcome.decisions),
            "missing": list(outcome.missing_decisions),
            "wrong": list(outcome.wrong_decisions),
            "by_rule": _by_rule(outcome),
        },
        "queries_before": outcome.queries_before,
        "faults_at_s": outcome.faults_at_s,
        "watcher_errors": outcome.observer_errors,
        "memory_mib": {part.name: part.memory_mib for part in outcome.status.parts},
        "agent_pss_mb": outcome.agent_pss_mb,
        "seconds": outcome.seconds,
    }


def page(report: dict[str, Any]) -> str:
    """Return the report for a person."""
    lines = ["", "FIELDLAKE DEMO: " + ("everything held" if report["held"] else "NOT EVERYTHING HELD"), ""]
    lines += ["figure                        value       aim", "-" * 50]
    for key, value in report["figures"].items():
        if value is not None:
            verdict = {True: "", False: "  MISSED", None: ""}[reached(key, value)]
            lines.append(f"{key:26} {value:>10,}   {report['aims'].get(key, '')}{verdict}")
    lines += ["", "stream               observed     kept  aggregated  dropped  lost   in table"]
    for stream, stage in report["stages"].items():
        dropped = sum(stage["dropped"].values())
        lines.append(
            f"{stream:18} {stage['observed']:>10,} {stage['kept']:>8,} {stage['aggregated']:>11,} {dropped:>8,} "
            f"{stage['lost']:>5,} {stage['in_table']:>10,}"
        )
    lines += ["", "input: " + "; ".join(f"{name} ({text})" for name, text in report["input"].items())]
    decisions = report["decisions"]
    by_rule = ", ".join(f"{count} {rule}" for rule, count in decisions["by_rule"].items())
    lines.append(
        f"decisions: {decisions['made']} ({by_rule}); missing {decisions['missing']}, wrong {decisions['wrong']}"
    )
    for name, spread in report["latencies"].items():
        lines.append(
            f"{name:10} n={spread['count']:<5} p50 {spread['p50_ms']:>8,.1f}  p95 {spread['p95_ms']:>8,.1f}  "
            f"p99 {spread['p99_ms']:>8,.1f}  max {spread['max_ms']:>8,.1f} ms"
        )
    lines.append(f"the three-source query was measured after {report['queries_before']:,} warm-up queries")
    memory = ", ".join(f"{name} {mib:,.0f}" for name, mib in sorted(report["memory_mib"].items(), key=lambda i: -i[1]))
    lines.append(f"memory: agent {report['figures']['agent_pss_mb']} MB at most; MiB of each part: {memory}")
    lines.append("seconds: " + ", ".join(f"{name} {seconds}" for name, seconds in report["seconds"].items()))
    return "\n".join(lines)


def write(outcome: Outcome, report: dict[str, Any], folder: Path) -> None:
    """Write report.json and the plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    measured = {name: samples for name, samples in outcome.latencies_ms.items() if samples}
    distributions(folder / "latencies.png", "Latencies while data flows", measured, AIMS_MS)
    bars(folder / "memory.png", "Memory of each part, proportional set size", "MiB", report["memory_mib"])
    bars(folder / "agents.png", "Largest proportional set size of each agent", "MB", outcome.agent_pss_mb)
    timeline(folder / "freshness.png", "Published to visible in SQL", outcome.freshness_timeline, outcome.faults_at_s)


def _wire(outcome: Outcome) -> dict[str, int]:
    sums: dict[str, int] = {}
    for ledger in outcome.ledgers.values():
        for name, value in ledger["wire"].items():
            if isinstance(value, int):
                sums[name] = sums.get(name, 0) + value
    return sums


def _stages(outcome: Outcome) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {}
    for ledger in outcome.ledgers.values():
        for stream, totals in ledger["streams"].items():
            stage = stages.setdefault(
                stream, {"observed": 0, "kept": 0, "aggregated": 0, "dropped": {}, "lost": 0, "in_table": 0}
            )
            for name in ("observed", "kept", "aggregated", "lost"):
                stage[name] += int(totals.get(name, 0))
            for reason, count in totals.get("dropped", {}).items():
                stage["dropped"][reason] = stage["dropped"].get(reason, 0) + int(count)
    for stream, comparison in outcome.verdict.tables.items():
        stages[stream]["in_table"] = comparison.found
    return stages


def _provenance(outcome: Outcome) -> dict[str, str]:
    counts: dict[str, dict[str, int]] = {}
    for entry in outcome.material.manifest.files:
        if entry.contract is not None:
            mine = counts.setdefault(entry.contract, {})
            for kind, rows in entry.provenance.items():
                mine[kind.value] = mine.get(kind.value, 0) + rows
    return {name: ", ".join(f"{rows:,} {kind}" for kind, rows in kinds.items()) for name, kinds in counts.items()}


def _by_rule(outcome: Outcome) -> dict[str, int]:
    counts: dict[str, int] = {}
    for decision in outcome.decisions:
        counts[decision.rule_id] = counts.get(decision.rule_id, 0) + 1
    return dict(sorted(counts.items()))
