"""The agent's process on this machine, as /proc shows it."""

from pathlib import Path
from typing import Final

MODULE: Final = b"edge_agent"


def runs(pid: int, proc: Path = Path("/proc")) -> bool:
    """Say whether a process of this number is an agent. Another process may have the number of one that has gone."""
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return MODULE in words


def holder_of(lock_file: Path, proc: Path = Path("/proc")) -> int | None:
    """Return the process that has a file locked, None without one.

    The kernel is asked and the lock is not touched: to try it would stop an agent that starts in that moment.
    """
    try:
        inode = str(lock_file.stat().st_ino)
        locks = (proc / "locks").read_text().splitlines()
    except OSError:
        return None
    for fields in map(str.split, locks):
        # `1: FLOCK ADVISORY WRITE 123 08:01:456 0 EOF`; the device's number is another one where file systems overlay.
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
            return int(fields[4])
    return None


def environment(pid: int, proc: Path = Path("/proc")) -> dict[str, str] | None:
    """Return the environment that a process was started with; None when it may not be looked at."""
    try:
        entries = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def memory_limit_bytes(pid: int, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the limit of the process's control group (version 2); None without one, or where that is not told."""
    try:
        groups = (proc / str(pid) / "cgroup").read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
        limit = (cgroups / own / "memory.max").read_text().strip()
    except (OSError, StopIteration):
        return None
    return int(limit) if limit.isdecimal() else None


def available_bytes(proc: Path = Path("/proc")) -> int | None:
    """Return how much memory the machine could give without swapping; None where it does not tell."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1_024
    return None
