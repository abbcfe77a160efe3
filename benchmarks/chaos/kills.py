"""kill -9 at random moments: a seed decides whom and when, the moment itself is the machine's."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import psutil
from msgspec import Struct

from contracts.errors import OperatorMustActError
from infra.demo.fleet import Fleet
from infra.launcher.settings import StackSettings
from infra.launcher.supervision import Supervisor

AGENT: Final = "agent"
PARTS: Final = ("mosquitto", "gateway", "ingest")  # the supervisor starts them again
KINDS: Final = (AGENT, *PARTS)
PAUSE_S: Final = (0.5, 9.0)  # s between kills, uniform: parts are hit while they start, at work, and while others start
RETURNS_WITHIN_S: Final = 120.0  # s; a part that is not there again by then will not come


class Kill(Struct, frozen=True):
    """One kill: how long after the one before, and of what kind; `agent` counts the devices."""

    pause_s: float
    kind: str
    agent: int


class Killed(Struct, frozen=True):
    """A kill that was made, in Unix seconds; `victim` is the device's name or the part's."""

    at_s: float
    kind: str
    victim: str
    pid: int


def plan(seed: int, kills: int, agents: int) -> list[Kill]:
    """Return what a seed decides."""
    rng = random.Random(seed)
    return [Kill(rng.uniform(*PAUSE_S), rng.choice(KINDS), rng.randrange(agents)) for _ in range(kills)]


def expected_s(kills: int) -> float:
    """Return how long so many kills take, on average."""
    return kills * sum(PAUSE_S) / 2


def carry_out(
    planned: list[Kill], fleet: Fleet, settings: StackSettings, tell: Callable[[str], None]
) -> Iterator[Killed]:
    """Make the kills one after the other, and start again what nobody else does.

    Raises OperatorMustActError when a victim does not come back, SupervisorError when the stack has gone.
    """
    supervisor, pause = Supervisor(settings), threading.Event()
    for number, kill in enumerate(planned, 1):
        pause.wait(kill.pause_s)
        killed = _kill_agent(fleet, kill.agent) if kill.kind == AGENT else kill_part(supervisor, kill.kind, pause)
        tell(f"kill -9 {number} of {len(planned)}: {killed.victim} (pid {killed.pid})")
        yield killed


def _kill_agent(fleet: Fleet, number: int) -> Killed:
    device = fleet.members[number].device
    pid = fleet.agents[device].pid
    if pid is None:
        raise OperatorMustActError(
            f"agent {device}: expected it running, found it ended: {fleet.agents[device].last_error()}"
        )
    at_s = time.time()
    fleet.kill_and_restart(device)
    return Killed(at_s, AGENT, device, pid)


def kill_part(supervisor: Supervisor, name: str, pause: threading.Event) -> Killed:
    """Kill a part as soon as it has a process: it may be about to start after the kill before."""
    deadline_s = time.monotonic() + RETURNS_WITHIN_S
    while time.monotonic() < deadline_s:
        state = supervisor.states()[name]
        if state.pid and state.state in ("STARTING", "RUNNING"):
            try:
                psutil.Process(state.pid).kill()
            except psutil.NoSuchProcess:
                continue  # It ended by itself just now.
            return Killed(time.time(), name, name, state.pid)
        pause.wait(0.2)
    raise OperatorMustActError(
        f"part {name}: expected it back within {RETURNS_WITHIN_S:.0f} s, it is {state.state}: see its log"
    )
