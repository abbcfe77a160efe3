"""kill -9 of what the lake stands on, at moments that a seed decides; of a committer between two of its steps."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import psutil
from msgspec import Struct

from benchmarks.chaos.kills import PAUSE_S, Killed, kill_part
from benchmarks.lake.ground import Ground
from benchmarks.lake.s3_proxy import S3Proxy, Stage, Trap
from infra.launcher.parts import kafka, postgres, services, store_a, store_b
from infra.launcher.supervision import Supervisor

COMMITTER: Final = "committer"
KINDS: Final = (services.INGEST, COMMITTER, kafka.NAME, postgres.NAME, store_a.NAME, store_b.NAME)
STAGES: Final[tuple[Stage, ...]] = ("before", "after")
TRAP_S: Final = 20.0  # s that a trap waits for a commit; while a store is away there may be none for so long


class Kill(Struct, frozen=True):
    """One kill: how long after the one before, of what kind; `stage` and `store` are for a committer."""

    pause_s: float
    kind: str
    stage: Stage
    store: int


def plan(seed: int, kills: int) -> list[Kill]:
    """Return what a seed decides."""
    rng = random.Random(seed)
    return [Kill(rng.uniform(*PAUSE_S), rng.choice(KINDS), rng.choice(STAGES), rng.randrange(2)) for _ in range(kills)]


class Killer:
    """Makes the kills. `stages` counts in which step of a commit its process was killed."""

    def __init__(self, ground: Ground, proxies: tuple[S3Proxy, S3Proxy]) -> None:
        self._ground, self._proxies = ground, proxies
        self._supervisor = Supervisor(ground.settings)
        self._pause = threading.Event()
        self.stages: dict[str, int] = dict.fromkeys(STAGES, 0) | {"no commit in time": 0}

    def carry_out(self, planned: list[Kill], tell: Callable[[str], None]) -> Iterator[Killed]:
        """Make the kills one after the other. Raises OperatorMustActError when a part does not come back."""
        for number, kill in enumerate(planned, 1):
            self._pause.wait(kill.pause_s)
            killed = self._committer(kill) if kill.kind == COMMITTER else self._part(kill.kind)
            tell(f"kill -9 {number} of {len(planned)}: {killed.kind} (pid {killed.pid})")
            yield killed

    def _part(self, kind: str) -> Killed:
        one = kill_part(self._supervisor, self._one_of(kind), self._pause)
        return Killed(one.at_s, kind, one.victim, one.pid)

    def _one_of(self, kind: str) -> str:
        """Ingest may be several parts: the one that has lived longest, so that each comes to its turn."""
        if kind != services.INGEST:
            return kind
        found = self._ingest_parts()
        return min(found, key=lambda name: found[name])

    def _ingest_parts(self) -> Mapping[str, int]:
        states = self._supervisor.states()
        return {
            name: state.started_at_s
            for name, state in states.items()
            if name.startswith(services.INGEST) and state.state != "STOPPED"
        }

    def _committer(self, kill: Kill) -> Killed:
        """Kill whoever writes the last file of a commit, before or after the store has it."""
        killed: list[Killed] = []

        def caught(port: int) -> bool:
            states = self._supervisor.states()
            pids = {s.pid for name, s in states.items() if name.startswith(services.INGEST) and s.pid}
            pid = _pid_of(port)
            if pid is None or not _belongs(pid, pids):
                return False
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.append(Killed(time.time(), COMMITTER, services.INGEST, pid))
            return bool(killed)

        proxy = self._proxies[kill.store]
        proxy.arm(Trap(kill.stage, caught))
        deadline_s = time.monotonic() + TRAP_S
        while not killed and time.monotonic() < deadline_s:
            self._pause.wait(0.05)
        proxy.arm(None)
        if killed:
            self.stages[kill.stage] += 1
            return killed[0]
        self.stages["no commit in time"] += 1
        one = self._part(services.INGEST)
        return Killed(one.at_s, COMMITTER, one.victim, one.pid)


def _pid_of(port: int) -> int | None:
    """Return the process at the client's end of a connection on this machine."""
    for connection in psutil.net_connections("tcp"):
        if connection.laddr and connection.laddr.port == port and connection.pid:
            return int(connection.pid)
    return None


def _belongs(pid: int, roots: set[int]) -> bool:
    """Say whether a process is one of these or below one."""
    try:
        process = psutil.Process(pid)
        return pid in roots or any(parent.pid in roots for parent in process.parents())
    except psutil.Error:
        return False
