"""What the system says of an agent's process."""

import shutil
import subprocess
from ipaddress import ip_address

import psutil

from tests.delivery.case import reached


def pss_mb(pid: int) -> float:
    """Return the proportional set size in MB (10^6 bytes)."""
    return float(psutil.Process(pid).memory_full_info().pss) / 1e6


def cpu_s(pid: int) -> float:
    """Return the processor time used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def open_things(pid: int) -> tuple[int, int]:
    """Return how many files and threads it has."""
    process = psutil.Process(pid)
    return process.num_fds(), process.num_threads()


def open_listeners(pid: int) -> list[str]:
    """Return the addresses besides loopback on which it listens."""
    found = psutil.Process(pid).net_connections(kind="inet")
    return [
        f"{entry.laddr.ip}:{entry.laddr.port}"
        for entry in found
        if entry.status == psutil.CONN_LISTEN and not ip_address(entry.laddr.ip).is_loopback
    ]


def family(pid: int) -> list[psutil.Process]:
    """Return it and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def is_gone(process: psutil.Process) -> bool:
    """Say whether a process has ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def written_bytes(pid: int) -> int:
    """Return how many bytes it has caused to be written to a disk."""
    return int(psutil.Process(pid).io_counters().write_bytes)


def end_process(pid: int) -> None:
    """End a process that the kit started, if it still runs, and wait for that."""
    if psutil.pid_exists(pid):
        process = psutil.Process(pid)
        process.kill()
        reached(lambda: is_gone(process), 10)


def can_trace() -> bool:
    """Say whether system calls of a process that the kit starts can be followed."""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )
