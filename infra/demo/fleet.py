"""The demo's devices: started side by side, one killed and started again, all waited for."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from infra.datasets import Manifest
from infra.fleet.agent import AgentProcess, Replay, prepare
from infra.fleet.identity import ensure_identities
from infra.launcher.endpoints import Endpoints

STOP_WITHIN_S: Final = 10.0  # s that an agent gets to flush when the demo ends early
# A machine has few events worth a row, even replayed at twenty times its speed, and a tablet's entries are not
# urgent: a slower flush gives fuller batches. 2 s here are most of a minute of the machine's own time.
FLUSH_INTERVAL_MS: Final = {"telemetry": 2_000, "service_history": 1_000}
FLUSH_INTERVAL_DEFAULT_MS: Final = 200


class Member(Struct, frozen=True):
    """One device, the file it replays, and how many seconds it shall need for that."""

    device: str
    contract: str
    file: Path
    rows: int
    flow_s: float


class Fleet:
    """All agents of a run."""

    def __init__(self, endpoints: Endpoints, bundle_dir: Path, members: list[Member]) -> None:
        self.members = members
        ensure_identities(endpoints, [member.device for member in members])
        self.agents = {
            member.device: AgentProcess(
                prepare(
                    endpoints,
                    bundle_dir,
                    Replay(
                        member.device,
                        member.contract,
                        member.file,
                        max(1.0, member.rows / member.flow_s),
                        FLUSH_INTERVAL_MS.get(member.contract, FLUSH_INTERVAL_DEFAULT_MS),
                    ),
                )
            )
            for member in members
        }
        self.pss_mb: dict[str, float] = {}

    def start(self, wanted: Callable[[Member], bool] = lambda _: True) -> float:
        """Start every agent, or those that are wanted; return the Unix time in s."""
        for member in self.members:
            if wanted(member):
                self.agents[member.device].start()
        return time.time()

    def kill_and_restart(self, device: str) -> None:
        """kill -9 one agent and start it again at once."""
        self.agents[device].kill()
        self.agents[device].start()

    def measure_memory(self) -> None:
        """Remember the largest proportional set size seen of every agent."""
        for device, agent in self.agents.items():
            found = agent.pss_mb()
            if found is not None:
                self.pss_mb[device] = max(found, self.pss_mb.get(device, 0.0))

    def ledgers(self, timeout_s: float) -> dict[str, dict[str, Any]]:
        """Wait until the lake has everything of every agent; return their ledgers by device."""
        deadline = time.monotonic() + timeout_s
        return {device: agent.wait(max(0.1, deadline - time.monotonic())) for device, agent in self.agents.items()}

    def stop(self) -> None:
        """End what still runs."""
        with ThreadPoolExecutor(len(self.agents)) as pool:
            list(pool.map(lambda agent: agent.terminate(STOP_WITHIN_S), self.agents.values()))


def members_of(manifest: Manifest, folder: Path, flow_s: Callable[[str], float]) -> list[Member]:
    """Return the devices that a manifest names, in its order; `flow_s` says how long those of a contract need."""
    return [
        Member(entry.device, entry.contract, folder / entry.path, entry.rows, flow_s(entry.contract))
        for entry in manifest.files
        if entry.role == "replay" and entry.device is not None and entry.contract is not None
    ]
