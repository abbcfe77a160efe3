"""How many events one core takes: a real agent on a file as fast as it goes. A part of the edge's figures.

The agent has one core to itself, for its threads too; broker, lake and this program share the other. Filter, windows,
sealing, encryption, fsync, TLS and the uplink are on. The rate is taken between two of the agent's own reports.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from msgspec import Struct

from benchmarks.device.broker import Broker, pin
from benchmarks.device.lake import CountingLake
from benchmarks.device.process import DeviceProcess
from benchmarks.device.workload import readings, write_bundle
from contracts.errors import OperatorMustActError
from edge_agent.config import FileSource
from edge_agent.report import Report
from infra.setup.paths import shuttle_csv_gz
from onnx_models import read_sensor_record

EVENTS: Final = 2_000_000
MACHINES: Final = 4
EVENTS_PER_S: Final = 1_000  # of event time
RUNS: Final = 5
WARM: Final = 0.1  # share of the events that pass before the measured ones
DEVICE: Final = "core-01"
ENDS_WITHIN_S: Final = 120.0
POLL_S: Final = 0.02


class Run(Struct, frozen=True):
    """One run: events per second of wall time and of processor time, and the largest memory."""

    events_per_s: float
    events_per_cpu_s: float
    pss_max_mb: float
    dropped_ratio: float


def measure(progress: Callable[[str], None], events: int = EVENTS, runs: int = RUNS) -> tuple[dict[str, float], Any]:
    """Return the median of the runs, and what the workload was."""
    found: list[Run] = []
    with TemporaryDirectory(prefix="fieldlake-throughput-") as name:
        folder = Path(name)
        bundle = write_bundle(folder / "bundle")
        source = folder / "events.jsonl"
        with source.open("wb") as file:
            for block in readings(read_sensor_record(shuttle_csv_gz()), events, MACHINES, EVENTS_PER_S):
                file.write(block)
        for number in range(runs):
            home = folder / f"run-{number}"
            home.mkdir()
            found.append(_run(home, folder / "bundle", source, bundle.contracts, events))
            progress(f"throughput: run {number + 1} of {runs}: {found[-1].events_per_s:,.0f} events/s")
    how = {
        "events": events,
        "machines": MACHINES,
        "source": "JSON lines, the sensor record over and over",
        "dropped or aggregated": round(statistics.median(run.dropped_ratio for run in found), 4),
        "runs": [round(run.events_per_s) for run in found],
        "per second of processor time": [round(run.events_per_cpu_s) for run in found],
        "PSS at most, MB": [round(run.pss_max_mb, 1) for run in found],
    }
    return {"events_per_s_core": round(statistics.median(run.events_per_s for run in found))}, how


def _run(home: Path, bundle_dir: Path, source: Path, contracts: Any, events: int) -> Run:
    cores = sorted(os.sched_getaffinity(0))
    pin(0, cores[0])
    try:
        with Broker(home) as broker:
            lake = CountingLake(broker, DEVICE, contracts).start()
            files = (FileSource("replay", str(source), "telemetry"),)
            agent = DeviceProcess(home, broker, DEVICE, bundle_dir, files, core=cores[-1])
            try:
                agent.start()
                return _followed(agent, events)
            finally:
                agent.kill()
                lake.close()
    finally:
        os.sched_setaffinity(0, cores)


def _followed(agent: DeviceProcess, events: int) -> Run:
    """Watch the agent's reports until all events are accounted for."""
    seen: list[tuple[float, float, Report]] = []
    pss_mb = 0.0
    deadline_s = time.monotonic() + ENDS_WITHIN_S
    while time.monotonic() < deadline_s:
        report = agent.report()
        observed = _observed(report)
        if report is not None and (not seen or observed > _observed(seen[-1][2])):
            seen.append((time.monotonic(), agent.cpu_s(), report))
            pss_mb = max(pss_mb, agent.pss_mb())
        if report is not None and observed == events:
            start, end = span([_observed(said) for _, _, said in seen])
            (start_s, start_cpu_s, first), (end_s, end_cpu_s, last) = seen[start], seen[end]
            taken = _observed(last) - _observed(first)
            kept = report.streams["telemetry"].kept
            return Run(taken / (end_s - start_s), taken / (end_cpu_s - start_cpu_s), pss_mb, 1.0 - kept / observed)
        time.sleep(POLL_S)
    raise OperatorMustActError(
        f"throughput: expected {events} events within {ENDS_WITHIN_S:.0f} s, found {agent.observed('telemetry')}"
    )


def span(observed: list[int]) -> tuple[int, int]:
    """Return between which two of the reports the rate is taken; each says how many events were observed by then.

    The last report comes some time after the last event, so the one before it is the end. The start is the first that
    is warm; of a run too short to have one before the end, the one before the end.

    Raises:
        OperatorMustActError: there are fewer than three reports.
    """
    end = len(observed) - 2
    if end < 1:
        raise OperatorMustActError(
            f"throughput: expected at least three reports with more events each, found {observed}: take more events"
        )
    warm = next(place for place, count in enumerate(observed) if count >= observed[-1] * WARM)
    return min(warm, end - 1), end


def _observed(report: Report | None) -> int:
    sums = report.streams.get("telemetry") if report is not None else None
    return sums.observed if sums is not None else 0
