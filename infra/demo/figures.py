"""Figures of a run: latencies as percentiles with count and maximum, and the keys that reports and benchmarks share."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

# Every key, with its unit in the name, and what it should reach; None where the figure only gives context.
REACH: Final[dict[str, tuple[str, float] | None]] = {
    "agent_pss_mb": ("<=", 80),
    "filter_drop_ratio": (">=", 0.90),
    "filter_recall": (">=", 0.99),
    "wire_bytes_per_event": None,
    "json_bytes_per_event": None,
    "wire_to_json_ratio": ("<=", 1 / 8),
    "rows_lost": ("<=", 0),
    "rows_doubled": ("<=", 0),
    "events_unexplained": ("<=", 0),
    "freshness_p50_ms": None,
    "freshness_p99_ms": ("<=", 1_500),
    "decision_p99_ms": ("<=", 500),
    "federated_p50_ms": None,
    "federated_p95_ms": ("<=", 300),
    "history_p99_ms": ("<=", 50),
    "stack_start_s": ("<=", 90),
    "stack_memory_gb": ("<=", 6),
    "demo_cold_s": ("<=", 600),
    "demo_warm_s": ("<=", 240),
}


class Latency(Struct, frozen=True):
    """Percentiles of one set of latencies in ms; NaN where nothing was measured."""

    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


def latency(samples_ms: Sequence[float]) -> Latency:
    """Return percentiles by linear interpolation over all samples."""
    if not samples_ms:
        nan = float("nan")
        return Latency(0, nan, nan, nan, nan)
    values = np.asarray(samples_ms, dtype=np.float64)
    p50, p95, p99 = (round(float(v), 1) for v in np.percentile(values, [50, 95, 99]))
    return Latency(len(samples_ms), p50, p95, p99, round(float(values.max()), 1))


def reached(key: str, value: float | None) -> bool | None:
    """Say whether a figure reaches its aim; None when it has no aim or was not measured."""
    aim = REACH[key]
    if aim is None or value is None or value != value:
        return None
    sign, bound = aim
    return value <= bound if sign == "<=" else value >= bound
