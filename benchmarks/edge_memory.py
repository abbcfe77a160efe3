"""What a device takes of memory while 1,000 readings a second come in. A part of the edge's figures.

A real agent of either profile replays a file at that rate, before a real broker over TLS and a lake that acknowledges:
filter model, windows, spool, raw ring and uplink are on. Memory is the proportional set size of the process, once a
second from the moment that its link is up. A start that finds nothing compiled is not measured: an installation
compiles, and what compiling leaves in memory would be measured for as long as the process lives.

`cgroup_ok` runs it inside a memory cgroup without swap until the lake has everything.
"""

import os
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.device.broker import Broker
from benchmarks.device.cgroup import MemoryGroup
from benchmarks.device.lake import CountingLake
from benchmarks.device.process import DeviceProcess
from benchmarks.device.workload import readings, write_bundle
from contracts.errors import OperatorMustActError
from edge_agent.config import FileSource, ProfileName
from edge_agent.environment import AGENT_ENVIRONMENT
from infra.bundles.build import FILTERED
from infra.setup.paths import edge_python, repo_root, shuttle_csv_gz
from onnx_models import read_sensor_record

EVENTS_PER_S: Final = 1_000
MACHINES: Final = 4
DEVICE: Final = "memory-01"
SAMPLE_S: Final = 1.0
LINK_WITHIN_S: Final = 30.0
DRAINS_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1
# All that an agent may import, the parts that come late among them.
IMPORTED: Final[dict[ProfileName, str]] = {
    "full": "edge_agent.app, edge_agent.adapters.bundle_filter, edge_agent.core.arrays, onnxruntime, datasketches",
    "lite": "edge_agent.app, edge_agent.lite.bundle_filter, edge_agent.lite.lists",
}


def measure(profile: ProfileName, seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return `median_mb`, `max_mb`, `samples` of (s since the first, MB of 10^6 bytes) and `events_per_s` as it was."""
    with TemporaryDirectory(prefix="fieldlake-memory-") as name, ExitStack() as stack:
        agent, _ = _site(Path(name), stack, profile, round((seconds + LINK_WITHIN_S) * EVENTS_PER_S))
        agent.start()
        _await_link(agent)
        begun_s = time.monotonic()
        samples: list[tuple[float, float]] = []
        while (at_s := time.monotonic() - begun_s) < seconds:
            samples.append((round(at_s, 1), round(agent.pss_mb(), 2)))
            if len(samples) % 60 == 0:
                progress(f"memory, {profile} profile: {samples[-1][1]:.1f} MB after {at_s:.0f} s")
            time.sleep(SAMPLE_S)
        rate = agent.observed(FILTERED) / (time.monotonic() - begun_s)
    values = [value for _, value in samples]
    return {
        "median_mb": round(statistics.median(values), 1),
        "max_mb": round(max(values), 1),
        "samples": samples,
        "events_per_s": round(rate),
    }


def cgroup_ok(limit_mib: int, seconds: float, profile: ProfileName = "full") -> bool:
    """Say whether an agent gets through within a limit: it ends by itself, nothing was killed, no event is missing.

    Raises OperatorMustActError where no memory cgroup can be made.
    """
    events = round(seconds * EVENTS_PER_S)
    with TemporaryDirectory(prefix="fieldlake-memory-") as name, ExitStack() as stack:
        agent, lake = _site(Path(name), stack, profile, events, until_drained=True)
        group = stack.enter_context(MemoryGroup(limit_mib))
        stack.callback(agent.kill)
        agent.start(group.starter)
        code, report = agent.end(seconds + DRAINS_WITHIN_S)
        if code != 0 or group.kills or report is None or not report.drained or report.unexplained:
            return False
        return report.streams[FILTERED].observed == events and lake.rows(FILTERED) == report.streams[FILTERED].kept


def _site(
    folder: Path, stack: ExitStack, profile: ProfileName, events: int, *, until_drained: bool = False
) -> tuple[DeviceProcess, CountingLake]:
    """Return an agent that is not started, and the lake; both end with the stack."""
    bundle = write_bundle(folder / "bundle")
    source = folder / "events.jsonl"
    with source.open("wb") as file:
        for block in readings(read_sensor_record(shuttle_csv_gz()), events, MACHINES, EVENTS_PER_S):
            file.write(block)
    _compile(profile)
    broker = stack.enter_context(Broker(folder))
    lake = CountingLake(broker, DEVICE, bundle.contracts).start()
    stack.callback(lake.close)
    files = (FileSource("replay", str(source), FILTERED, float(EVENTS_PER_S)),)
    agent = DeviceProcess(
        folder, broker, DEVICE, folder / "bundle", files, profile=profile, until_drained=until_drained
    )
    stack.callback(agent.kill)
    return agent, lake


def _compile(profile: ProfileName) -> None:
    command = [str(edge_python()), "-c", f"import {IMPORTED[profile]}"]
    subprocess.run(command, check=True, cwd=repo_root(), env=os.environ | AGENT_ENVIRONMENT)


def _await_link(agent: DeviceProcess) -> None:
    deadline_s = time.monotonic() + LINK_WITHIN_S
    while (report := agent.report()) is None or report.link != "up":
        if time.monotonic() > deadline_s:
            raise OperatorMustActError(f"memory: expected a link within {LINK_WITHIN_S:.0f} s: {report}")
        time.sleep(POLL_S)
