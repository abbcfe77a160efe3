"""Where a running agent's figures are read: for its status, and once a minute for the lake."""

from collections.abc import Callable

from contracts.ports import Clock
from contracts.watermark import AckDocument
from edge_agent.core.lag import Lag
from edge_agent.core.metrics import Levels, Meter, Metrics, Totals
from edge_agent.core.spool.pressure import Step
from edge_agent.core.spool.spool import Spool
from edge_agent.courier import Courier
from edge_agent.report import Health
from edge_agent.version import AGENT_VERSION


class Gauges:
    """Reads spool and courier. Runs in the agent's thread."""

    def __init__(
        self,
        spool: Spool,
        courier: Courier,
        clock: Clock,
        memory_mb: Callable[[], float | None],
        cpu_s: Callable[[], float],
        interval_s: float,
        sources: frozenset[str],
        pid: int,
    ) -> None:
        self._spool, self._courier, self._clock = spool, courier, clock
        self._memory_mb, self._cpu_s = memory_mb, cpu_s
        self._sources = sources
        self._pid = pid
        self._started_ms = clock.now_ms()
        self._lags = _lags_of(spool, clock)
        self._commit_ms: int | None = None  # by the lake's clock; None until this connection has brought one
        self._meter = Meter(interval_s, self._totals(), clock.monotonic_s())

    def flushed(self, began_s: float) -> None:
        """A flush that began then has just become durable."""
        self._meter.flushed(self._clock.monotonic_s() - began_s)

    def acknowledged(self, ack: AckDocument | None) -> None:
        """An acknowledgement has just arrived; the first of a connection was kept for us and says nothing of now."""
        newest_ms = max(
            (mark.committed_at_ms for mark in ack.watermarks if mark.epoch == self._spool.epoch) if ack else (),
            default=None,
        )
        if newest_ms is None:
            return
        if self._commit_ms is not None and newest_ms > self._commit_ms:
            self._meter.committed(self._clock.now_ms(), newest_ms)
        self._commit_ms = newest_ms

    def link_lost(self) -> None:
        """What the next connection brings first is older than it."""
        self._commit_ms = None

    def metrics(self, step: Step, bundle_version: str) -> Metrics | None:
        """Return the row that is due, if one is and the disk has room for it."""
        now_s = self._clock.monotonic_s()
        if not self._meter.is_due(now_s) or step >= Step.DROP:
            return None
        memory_mb = self._memory_mb()
        lag_events, lag_ms = self._lag(now_s)
        levels = Levels(
            pss_bytes=None if memory_mb is None else int(memory_mb * 1e6),
            spool_bytes=self._spool.owed_bytes,
            ring_bytes=self._spool.size_bytes - self._spool.owed_bytes,
            pending_batches=len(self._courier.window),
            held_batches=self._courier.window.held,
            lag_events=lag_events,
            lag_ms=lag_ms,
            ladder_step=step.name.lower(),
            bundle_version=bundle_version,
            agent_version=AGENT_VERSION,
        )
        return self._meter.row(self._totals(), levels, now_s, self._clock.now_ms())

    def health(self) -> Health:
        """Return what the status says beside the ledger; called once a second."""
        lag_events, lag_ms = self._lag(self._clock.monotonic_s())
        return Health(
            pid=self._pid,
            started_ms=self._started_ms,
            written_ms=self._clock.now_ms(),
            agent_version=AGENT_VERSION,
            connections=self._courier.connections,
            lag_events=lag_events,
            lag_ms=lag_ms,
            quota_bytes=self._spool.quota_bytes,
        )

    def _totals(self) -> Totals:
        window = self._courier.window
        return Totals(
            observed=sum(events for stream, events in self._spool.observed.items() if stream in self._sources),
            batches=window.published,
            resends=window.resent,
            connections=self._courier.connections,
            cpu_s=self._cpu_s(),
        )

    def _lag(self, now_s: float) -> tuple[int, int]:
        """Return how many numbers of all streams the watermarks do not cover, and for how many ms the oldest waits."""
        missing, oldest_s = 0, 0.0
        for stream, events in self._spool.observed.items():
            committed = self._courier.committed_upto(stream)
            lag = self._lags.setdefault(stream, Lag())
            lag.mark(events, now_s)
            oldest_s = max(oldest_s, lag.age_s(committed, now_s))
            missing += max(0, events - committed)
        return missing, round(oldest_s * 1_000)


def _lags_of(spool: Spool, clock: Clock) -> dict[str, Lag]:
    """Return how far the watermarks are behind on what an earlier process has left in the spool."""
    lags: dict[str, Lag] = {}
    now_s, now_ms = clock.monotonic_s(), clock.now_ms()
    for segment in spool.segments:
        if segment.number not in spool.done:
            for stream, held in segment.ranges.items():
                age_s = max(0, now_ms - segment.first_ms) / 1_000
                lags.setdefault(stream, Lag()).mark(held[-1][1], now_s - age_s)
    return lags
