"""Processes of one copy of the stack: who they are, what memory they hold, and how to end them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

from infra.launcher.supervision import MARKER_VARIABLE

KILL_WAIT_S: Final = 5.0  # after SIGKILL a process is gone as soon as the kernel has freed its memory
KIB: Final = 1_024


def left_over(instance: str) -> list[psutil.Process]:
    """Return every live process that carries this copy's marker, wherever it was started from."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER_VARIABLE) == instance and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(processes: Iterable[psutil.Process], wait_s: float) -> list[psutil.Process]:
    """Send SIGTERM, after `wait_s` seconds SIGKILL; return what is still alive. A reused pid is never signalled."""
    waiting = list(processes)
    for process in waiting:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(waiting, timeout=wait_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(alive, timeout=KILL_WAIT_S)
    return [process for process in alive if process.is_running()]


def tree_memory_bytes(pid: int) -> int:
    """Return the proportional set size of a process and all its descendants; 0 when it is gone."""
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_memory_bytes(process) for process in members)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        return proportional_set_bytes(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
    except OSError:
        pass
    try:
        # Another account's memory map is not ours to read; resident size counts shared pages in full.
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def proportional_set_bytes(rollup: str) -> int:
    """Return the `Pss` line of the kernel's roll-up, in bytes."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * KIB
    return 0


def describe(pid: int | None) -> str:
    """Name a process for an error message."""
    if pid is None:
        return "a process of another account"
    try:
        process = psutil.Process(pid)
        return f"pid {pid} ({os.path.basename(process.name())}: {' '.join(process.cmdline())[:80]})"
    except psutil.Error:
        return f"pid {pid}"
