"""Processes of a test's own, so that it may kill them: parts of the stack, and our own processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from infra.launcher.accounts import is_root
from infra.launcher.errors import NotReadyError
from infra.launcher.files import write_file
from infra.launcher.model import Context, Part
from infra.setup.paths import repo_root
from tests.waiting import DEADLINE_S, eventually

Status = TypeVar("Status")


class Daemon:
    """One part of the stack as a process of ours."""

    def __init__(self, part: Part, context: Context) -> None:
        self.part, self._context = part, context
        self._process: subprocess.Popen[bytes] | None = None
        for file in part.files:
            write_file(file.path, file.text.encode())
        for folder in part.owned:
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        """Process id of the newest start."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it does its work."""
        self.part.prepare(self._context)
        log = self._context.settings.logs_dir / f"{self.part.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        user = self.part.user if is_root() else None
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                self.part.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                user=user,
                env={**os.environ, **self.part.environment},
            )
        eventually(self._is_ready, f"{self.part.name} is ready, log {log}")
        self.part.provision(self._context)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it whatever its state."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.part.name} ended with {self._process.returncode}"
        try:
            self.part.probe(self._context)
        except NotReadyError:
            return False
        return True


class OwnProcess(Generic[Status]):
    """One of our processes as the launcher would start it: `python -m MODULE --config FILE`."""

    def __init__(self, module: str, folder: Path, config: bytes, decode: Callable[[bytes], Status]) -> None:
        self.module = module
        self.config_file = folder / f"{module}.json"
        self.log_file = folder / f"{module}.log"
        self.ready_file = folder / f"{module}.json.ready"
        self.config_file.write_bytes(config)
        self._decode = decode
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the newest start."""
        assert self._process is not None
        return self._process.pid

    def start(self, until_ready: bool = True) -> None:
        """Start it and, unless told otherwise, wait for its ready file."""
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", self.module, "--config", str(self.config_file)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=repo_root(),
            )  # fmt: skip
        if until_ready:
            eventually(self._is_ready, f"{self.module} is ready, log {self.log_file}")

    def kill(self) -> None:
        """End it with kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=DEADLINE_S)

    def status(self) -> Status | None:
        """Return the newest status of this process, None before its first."""
        path = self.config_file.with_name(f"{self.module}.json.status.json")
        return self._decode(path.read_bytes()) if path.exists() else None

    def await_status(self, condition: Callable[[Status], bool], what: str) -> Status:
        """Wait until the status satisfies a condition and return it."""

        def probe() -> Status | None:
            found = self.status()
            return found if found is not None and condition(found) else None

        return eventually(probe, lambda: f"{what}; last status {self.status()}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log_file.read_text()
        try:
            return self.ready_file.read_text() == f"{self._process.pid}\n"
        except FileNotFoundError:  # perhaps just now: one that was killed leaves its file to the next, which removes it
            return False
