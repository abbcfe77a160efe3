"""Processes of the lakehouse that a measurement starts and ends itself: `python -m MODULE --config FILE`.

All that is known of them is what anybody sees: the ready file, the status file, the process.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import psutil
from msgspec.structs import replace

from benchmarks.lake.ground import Ground
from contracts.errors import OperatorMustActError
from infra.launcher.files import write_file
from infra.launcher.processes import tree_memory_bytes
from infra.launcher.supervision import base_environment
from infra.setup.paths import lake_python

INGEST: Final = "lakehouse"
MAINTENANCE: Final = "lakehouse.maintenance"
READY_WITHIN_S: Final = 300.0  # s; a start that reads the state of a million origins is measured, not cut short
STOP_WITHIN_S: Final = 30.0
POLL_S: Final = 0.02
LOG_TAIL_CHARS: Final = 2_000


class Worker:
    """One process over a configuration of its own."""

    def __init__(self, ground: Ground, module: str, number: int = 1) -> None:
        self.name = f"{module}-{number}"
        folder = ground.folder / self.name
        folder.mkdir(exist_ok=True)
        self._config = folder / "config.json"
        self._log = folder / "log"
        self._module = module
        self._environment = base_environment(ground.settings)
        self._process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        write_file(self._config, msgspec.json.encode(replace(ground.lake_config, worker=self.name)))

    @property
    def pid(self) -> int:
        """Of the running process. Raises OperatorMustActError when it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise OperatorMustActError(f"{self.name}: expected it to run, it has ended: {self._tail()}")
        return self._process.pid

    @property
    def memory_mb(self) -> float:
        """Proportional set size in MB."""
        return tree_memory_bytes(self.pid) / 1e6

    @property
    def cpu_s(self) -> float:
        """Processor time that it has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def start(self) -> Self:
        """Start it and return at once."""
        self._beside("ready").unlink(missing_ok=True)
        self._beside("status.json").unlink(missing_ok=True)
        self.started_s = time.time()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(lake_python()), "-m", self._module, "--config", str(self._config)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def await_ready(self) -> float:
        """Return the seconds from its start until it said that it is ready."""
        ready, deadline_s = self._beside("ready"), time.time() + READY_WITHIN_S
        while not ready.exists():
            if time.time() > deadline_s:
                raise OperatorMustActError(f"{self.name}: not ready within {READY_WITHIN_S:.0f} s: {self._tail()}")
            assert self.pid
            time.sleep(POLL_S)
        return time.time() - self.started_s

    def status(self) -> dict[str, Any]:
        """Return the newest status, an empty one before the first."""
        return read_status(self._beside("status.json"))

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it in its tracks: it keeps all it has and does nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on from where it was stopped."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it in its own time, or by force."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def _beside(self, ending: str) -> Path:
        return self._config.with_name(f"{self._config.name}.{ending}")

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-LOG_TAIL_CHARS:] if self._log.exists() else "no log"


class Workers:
    """Some processes of one module, ended when left."""

    def __init__(self, ground: Ground, module: str, count: int) -> None:
        self.all = [Worker(ground, module, number) for number in range(1, count + 1)]

    def __enter__(self) -> Self:
        for worker in self.all:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.all:
            worker.stop()

    @property
    def cpu_s(self) -> float:
        """Processor time that they have used together."""
        return sum(worker.cpu_s for worker in self.all)

    def await_ready(self) -> float:
        """Return the Unix time at which the first of them was ready, once all are."""
        for worker in self.all:
            worker.await_ready()
        return min(worker._beside("ready").stat().st_mtime for worker in self.all)


def read_status(path: Path) -> dict[str, Any]:
    """Return what a status file says, an empty mapping while there is none."""
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def part_status(ground: Ground, part: str) -> dict[str, Any]:
    """Return the status of a process that the launcher keeps."""
    return read_status(ground.context.conf(part) / "config.json.status.json")


class Sampler:
    """Calls a function every so often from a thread of its own and keeps what it returns with the time."""

    def __init__(
        self, look: Callable[[], Mapping[str, float]], every_s: float, passing: tuple[type[Exception], ...] = ()
    ):
        self.samples: list[tuple[float, dict[str, float]]] = []
        self._look, self._every_s, self._passing = look, every_s, passing
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self.failure is not None and kind is None:
            raise self.failure

    def series(self, key: str, began_s: float) -> list[tuple[float, float]]:
        """Return (seconds since a Unix time, value) of one key, rounded for a result file."""
        return [(round(at_s - began_s, 2), found[key]) for at_s, found in self.samples if key in found]

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.samples.append((time.time(), dict(self._look())))
            except self._passing:
                continue
            except Exception as error:  # noqa: BLE001 - raised again when left; a thread has no other way to say it
                self.failure = error
                return
