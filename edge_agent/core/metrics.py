"""What an agent says of itself once a minute: one wide row of the contract `agent_metrics`.

One row with all figures takes 178 bytes on the wire, header and all; a row per figure, with its name, 264.
"""

from typing import Any, Final

from msgspec import Struct

from contracts.contract import Contract
from edge_agent.core.durations import Durations

AGENT_METRICS: Final = "agent_metrics"
METRICS_INTERVAL_S: Final = 60.0  # s; 256 KB a day, and a device that fares badly is noticed within a minute
INT_MAX: Final = 2**31 - 1


class Totals(Struct, frozen=True):
    """What only grows while a process runs."""

    observed: int = 0
    batches: int = 0
    resends: int = 0
    connections: int = 0
    cpu_s: float = 0.0


class Levels(Struct, frozen=True):
    """What is so at one moment; see the contract for each."""

    pss_bytes: int | None = None
    spool_bytes: int = 0
    ring_bytes: int = 0
    pending_batches: int = 0
    held_batches: int = 0
    lag_events: int = 0
    lag_ms: int = 0
    ladder_step: str = "none"
    bundle_version: str = ""
    agent_version: str = ""


class Metrics(Struct, frozen=True):
    """A row of the contract, by its fields; `measured_at` is Unix time in microseconds."""

    measured_at: int
    interval_ms: int
    observed: int
    batches: int
    resends: int
    reconnects: int
    flushes: int
    flush_p50_us: int | None
    flush_p99_us: int | None
    cpu_ms: int
    pss_bytes: int | None
    spool_bytes: int
    ring_bytes: int
    pending_batches: int
    held_batches: int
    lag_events: int
    lag_ms: int
    clock_offset_ms: int | None
    ladder_step: str
    bundle_version: str
    agent_version: str


class Meter:
    """Turns totals into what was added since the last row. An interval of 0 s makes no rows."""

    def __init__(self, interval_s: float, totals: Totals, now_s: float) -> None:
        self._interval_s = interval_s
        self._totals = totals
        self._since_s = now_s
        self._flushes = Durations()
        self._clock_offset_ms: int | None = None

    def is_due(self, now_s: float) -> bool:
        """Say whether it is time for a row."""
        return self._interval_s > 0 and now_s - self._since_s >= self._interval_s

    def flushed(self, duration_s: float) -> None:
        """Count a flush that is durable."""
        self._flushes.add(duration_s)

    def committed(self, device_ms: int, lake_ms: int) -> None:
        """Note that what the lake committed at `lake_ms` of its clock was known here at `device_ms` of ours."""
        offset_ms = device_ms - lake_ms
        # The way back only adds, so the least is the nearest.
        known = self._clock_offset_ms
        self._clock_offset_ms = offset_ms if known is None else min(known, offset_ms)

    def row(self, totals: Totals, levels: Levels, now_s: float, now_ms: int) -> Metrics:
        """Return the row of the time since the last one, and begin anew."""
        before, since_s = self._totals, self._since_s
        metrics = Metrics(
            measured_at=now_ms * 1_000,
            interval_ms=_int((now_s - since_s) * 1_000),
            observed=totals.observed - before.observed,
            batches=totals.batches - before.batches,
            resends=totals.resends - before.resends,
            reconnects=totals.connections - before.connections,
            flushes=self._flushes.count,
            flush_p50_us=self._flushes.quantile_us(0.50),
            flush_p99_us=self._flushes.quantile_us(0.99),
            cpu_ms=_int((totals.cpu_s - before.cpu_s) * 1_000),
            pss_bytes=levels.pss_bytes,
            spool_bytes=levels.spool_bytes,
            ring_bytes=levels.ring_bytes,
            pending_batches=levels.pending_batches,
            held_batches=levels.held_batches,
            lag_events=levels.lag_events,
            lag_ms=levels.lag_ms,
            clock_offset_ms=self._clock_offset_ms,
            ladder_step=levels.ladder_step,
            bundle_version=levels.bundle_version,
            agent_version=levels.agent_version,
        )
        self._totals, self._since_s, self._clock_offset_ms = totals, now_s, None
        self._flushes.clear()
        return metrics


def columns_of(contract: Contract, metrics: Metrics) -> dict[str, list[Any]]:
    """Return a row as columns of the contract; texts are cut to what it allows."""
    found: dict[str, list[Any]] = {}
    for field in contract.fields:
        value = getattr(metrics, field.name)
        found[field.name] = [value[: field.checks.max_length] if isinstance(value, str) else value]
    return found


def _int(value: float) -> int:
    return min(INT_MAX, max(0, round(value)))
