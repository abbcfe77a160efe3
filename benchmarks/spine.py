"""The spine's figures: the demo from a fresh clone, cold and warm, then a steady flow on a stack that is warm.

1. cold    `make demo` in a fresh clone with empty caches; its report gives what is lost, doubled, kept, sent.
2. warm    `make demo` in the same clone again.
3. steady  a stack of its own: four collectors replay purchases and clicks, together 1,000 events/s; after the warm-up
           the probe publishes on schedule, and the three-source query and the history endpoint are asked meanwhile.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.result import RESULTS_DIR, Figures, Result, result
from benchmarks.steady import Steady, measure_steady
from contracts.errors import OperatorMustActError
from infra.demo.figures import latency
from infra.demo.plots import distributions

FROM_DEMO: Final = (
    "agent_pss_mb",
    "filter_drop_ratio",
    "filter_recall",
    "wire_bytes_per_event",
    "json_bytes_per_event",
    "rows_lost",
    "rows_doubled",
    "events_unexplained",
    "stack_start_s",
    "stack_memory_gb",
)
AIMS_MS: Final = {"freshness": 1_500.0, "decision": 500.0, "federated": 300.0, "history": 50.0}


def run(tell: Callable[[str], None]) -> Result:
    """Run all three and return every figure."""
    root = RESULTS_DIR.parents[1]
    with tempfile.TemporaryDirectory(prefix="fieldlake-bench-") as scratch:
        clone, caches = Path(scratch) / "clone", Path(scratch) / "caches"
        subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True)
        cold_s, _ = _demo(clone, caches, tell)
        warm_s, report = _demo(clone, caches, tell)
        shutil.rmtree(clone)
    steady = measure_steady(tell)
    _plot(steady)
    spread = {name: latency(samples) for name, samples in steady.latencies_ms.items()}
    figures: Figures = {key: report["figures"][key] for key in FROM_DEMO}
    figures |= {
        "freshness_p50_ms": spread["freshness"].p50_ms,
        "freshness_p99_ms": spread["freshness"].p99_ms,
        "decision_p99_ms": spread["decision"].p99_ms,
        "federated_p50_ms": spread["federated"].p50_ms,
        "federated_p95_ms": spread["federated"].p95_ms,
        "history_p99_ms": spread["history"].p99_ms,
        "demo_cold_s": round(cold_s, 1),
        "demo_warm_s": round(warm_s, 1),
    }
    return result("spine", _how(report, steady), figures)


def _demo(clone: Path, caches: Path, tell: Callable[[str], None]) -> tuple[float, dict[str, Any]]:
    for name in ("home", "cache"):
        (caches / name).mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "JAVA_HOME")},
        "HOME": str(caches / "home"),
        "XDG_CACHE_HOME": str(caches / "cache"),
        "UV_CACHE_DIR": str(caches / "cache" / "uv"),
        "PIP_CACHE_DIR": str(caches / "cache" / "pip"),
    }
    log = caches / "demo.log"
    tell(f"make demo in {clone}, log {log} ...")
    began = time.monotonic()
    with log.open("ab") as output:
        code = subprocess.run(
            ["make", "demo"],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        ).returncode
    seconds = time.monotonic() - began
    tell(f"make demo: exit {code} in {seconds:.0f} s")
    if code != 0:
        raise OperatorMustActError(f"make demo: exit {code}; the end of its log:\n{log.read_text()[-2_000:]}")
    report: dict[str, Any] = msgspec.json.decode((clone / "out" / "demo" / "report.json").read_bytes())
    return seconds, report


def _how(report: dict[str, Any], steady: Steady) -> dict[str, Any]:
    return {
        "demo": "make demo in a fresh clone: cold with empty caches, then warm; 26 agents, three kills; figures of the "
        "warm run for " + ", ".join(FROM_DEMO),
        "demo_input": report["input"],
        "demo_latencies": report["latencies"],
        "filter": "hold-out: the last 30 % of the sensor record, not trained on; counts in the model card",
        "wire": "PUBLISH packets of the replayed contracts against the same rows as compact JSON lines",
        "steady": steady.how,
        "latency": {name: msgspec.to_builtins(latency(samples)) for name, samples in steady.latencies_ms.items()},
        "json": "wire_bytes_per_event is to be at most 1/8 of json_bytes_per_event",
    }


def _plot(steady: Steady) -> None:
    distributions(RESULTS_DIR / "spine.png", "Latencies at a steady 1,000 events/s", steady.latencies_ms, AIMS_MS)
