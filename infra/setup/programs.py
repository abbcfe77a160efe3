"""Runs the programs that steps are made of: output into a log, the last line to the screen, an error into one line."""

import os
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from infra.setup import paths
from infra.setup.errors import CommandFailedError, DiskSpaceError

# How much of a failed program's output goes to the screen: enough for pip's and apt's reasons, not for a traceback.
SHOWN_LINES: Final = 4
# How long a program may take to end after SIGTERM before it is killed.
TERMINATE_TIMEOUT_S: Final = 5


class Programs:
    """The running programs of one set-up, so that an interrupt can end them all."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        step: str,
        command: Sequence[str | Path],
        on_line: Callable[[str], None],
        environment: Mapping[str, str] | None = None,
        shown_lines: int = SHOWN_LINES,
    ) -> None:
        """Run `command` to its end in the repository's root; `environment` is added to our own.

        Raises:
            CommandFailedError: it ended with another code than 0 (the text carries its last lines), or was stopped.
            DiskSpaceError: it said that the disk is full.
        """
        self._log_folder.mkdir(parents=True, exist_ok=True)
        log_file = self._log_folder / f"{step}.log"
        last: deque[str] = deque(maxlen=shown_lines)
        with log_file.open("a") as log:
            log.write(f"$ {' '.join(str(part) for part in command)}\n")
            process = self._start(command, environment)
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                if text := line.strip():
                    last.append(text)
                    on_line(text)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
            stopped = self._stopped
        if code == 0:
            return
        if stopped:
            raise CommandFailedError("interrupted")
        if any("No space left on device" in line for line in last):
            raise DiskSpaceError(f"the disk is full: {last[-1]}; make room and run again (log: {log_file})")
        reason = " | ".join(last) or "no output"
        raise CommandFailedError(f"{Path(command[0]).name} ended with code {code}: {reason} (log: {log_file})")

    def stop(self) -> None:
        """End every running program; those that would start later are refused."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(TERMINATE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise CommandFailedError("interrupted")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                cwd=paths.repo_root(),
                env={**os.environ, **(environment or {})},
            )
            self._running.add(process)
            return process
