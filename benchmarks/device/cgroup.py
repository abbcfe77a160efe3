"""A memory cgroup without swap for one process: what it may use at most, and whether the kernel had to kill for it.

Sources: Linux kernel documentation, "Memory Resource Controller" (version 1) and "Control Group v2". Page cache of the
files that the process writes counts too, and is taken back when it has to be.
"""

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from contracts.errors import OperatorMustActError

ROOT: Final = Path("/sys/fs/cgroup")
EMPTY_WITHIN_S: Final = 5.0  # s; a process that has ended leaves its group a little later
MIB: Final = 2**20


class MemoryGroup:
    """Exists between `with` and its end. Raises OperatorMustActError where no group can be made, which takes root."""

    def __init__(self, limit_mib: int) -> None:
        self._limit_bytes = limit_mib * MIB
        self._is_second = (ROOT / "cgroup.controllers").exists()
        self._folder = (ROOT if self._is_second else ROOT / "memory") / f"fieldlake-{os.getpid()}"

    @property
    def starter(self) -> tuple[str, ...]:
        """The command that enters the group and becomes what follows it."""
        return ("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs"))

    @property
    def used_bytes_max(self) -> int:
        """The most that was in use, page cache included."""
        return int(self._read("memory.peak" if self._is_second else "memory.max_usage_in_bytes"))

    @property
    def kills(self) -> int:
        """How often the kernel killed a process of the group because of the limit."""
        text = self._read("memory.events" if self._is_second else "memory.oom_control")
        found = dict(line.split() for line in text.splitlines())
        if "oom_kill" not in found:
            raise OperatorMustActError(f"{self._folder}: expected the kernel to count oom_kill, found {sorted(found)}")
        return int(found["oom_kill"])

    def __enter__(self) -> "MemoryGroup":
        try:
            self._folder.mkdir()
            if self._is_second:
                self._write("memory.max", self._limit_bytes)
                self._write("memory.swap.max", 0)
            else:
                self._write("memory.limit_in_bytes", self._limit_bytes)
                self._write("memory.swappiness", 0)
            assert self.kills == 0
        except OSError as error:
            self._remove()
            raise OperatorMustActError(
                f"memory cgroup {self._folder}: {error.strerror}: run as root where the memory controller is mounted"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        deadline_s = time.monotonic() + EMPTY_WITHIN_S
        while self._folder.exists():
            try:
                self._folder.rmdir()
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text()

    def _write(self, name: str, value: int) -> None:
        (self._folder / name).write_text(str(value))
