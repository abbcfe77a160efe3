"""Checks of what the machine gives an agent: folders, room, key file, clock, memory."""

import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_agent.adapters.cipher import KEY_BYTES
from edge_agent.core.spool.pressure import RESERVE_BYTES, SCARCE_BYTES
from edge_agent.environment import AGENT_ENVIRONMENT
from edge_agent.operating import processes
from edge_agent.operating.findings import Finding, Level, ok
from edge_agent.operating.patient import Patient

MEMORY_BYTES: Final = 134_217_728  # bytes; what the service is ended at
MEMORY_BYTES_MIN: Final = 100_663_296  # bytes; an agent with a model was tried for long within 96 MiB
CLOCK_ERROR: Final = 5  # TIME_ERROR of adjtimex(2): nothing keeps the clock right


def process(patient: Patient) -> Iterator[Finding]:
    yield ok("process", f"runs as {patient.pid}" if patient.pid is not None else "does not run")


def folders(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    for what, folder in (
        ("spool", patient.spool_dir),
        ("status file", Path(config.status_file).parent),
        *((("log file", Path(config.log_file).parent),) if config.log_file else ()),
    ):
        there = folder if folder.exists() or what != "spool" else _existing_parent(folder)
        if not os.access(there, os.W_OK | os.X_OK):
            remedy = f"make {folder} with the agent's user as its owner"
            yield Finding("folders", Level.BAD, f"{what}: {there} cannot be written", remedy)
        elif what == "spool" and folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            mode = stat.S_IMODE(folder.stat().st_mode)
            yield Finding("folders", Level.WARNING, f"{folder} has mode {mode:03o}", f"run `chmod 700 {folder}`")
        else:
            yield ok("folders", f"{what}: {folder}" + ("" if folder.exists() else ", made at the first start"))


def room(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    found = os.statvfs(_existing_parent(patient.spool_dir))
    free_bytes = found.f_bavail * found.f_frsize
    used_bytes = sum(one.stat().st_size for one in patient.spool_dir.glob("segment-*"))
    wanted_bytes = config.spool.quota_bytes + (config.spool.ring_bytes if config.spool.ring_hours else 0)
    missing_bytes = wanted_bytes + RESERVE_BYTES - used_bytes - free_bytes
    said = (
        f"{free_bytes / 1e6:.0f} MB free, spool and ring may grow by {max(0, wanted_bytes - used_bytes) / 1e6:.0f} MB"
    )
    if free_bytes < RESERVE_BYTES + SCARCE_BYTES:
        yield Finding("room", Level.BAD, said, "free some disk: the agent begins to give things up")
    elif missing_bytes > 0:
        yield Finding("room", Level.WARNING, said, "free some disk, or set a smaller ring_bytes or quota_bytes")
    else:
        yield ok("room", said)


def key(patient: Patient) -> Iterator[Finding]:
    path = patient.key_file
    if not path.exists():
        if any(patient.spool_dir.glob("segment-*")):
            remedy = "put it back from a copy; without it nothing in the spool can be read"
            yield Finding("key", Level.BAD, f"{path} is not there", remedy)
        else:
            yield ok("key", f"{path} is made at the first start")
        return
    mode, size_bytes = stat.S_IMODE(path.stat().st_mode), path.stat().st_size
    if size_bytes != KEY_BYTES:
        remedy = "put back the one the spool was written with"
        yield Finding("key", Level.BAD, f"{path} has {size_bytes} bytes, expected {KEY_BYTES}", remedy)
    elif mode & 0o077:
        yield Finding("key", Level.BAD, f"{path} has mode {mode:03o}", f"run `chmod 600 {path}`")
    else:
        yield ok("key", f"{path}, for its owner alone")


def clock(_patient: Patient) -> Iterator[Finding]:
    # 208 bytes of struct timex; with modes 0 nothing is set.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == CLOCK_ERROR:
        remedy = "switch on time synchronisation, for example `timedatectl set-ntp true`"
        yield Finding("clock", Level.WARNING, "nothing keeps it right, says the kernel", remedy)
    else:
        yield ok("clock", "kept right, says the kernel")


def memory(patient: Patient) -> Iterator[Finding]:
    limit = processes.memory_limit_bytes(patient.pid) if patient.pid is not None else None
    if limit is not None and limit < MEMORY_BYTES_MIN:
        remedy = f"set MemoryMax to {MEMORY_BYTES // 1_048_576}M"
        yield Finding("memory", Level.WARNING, f"the service may take {limit // 1_048_576} MiB", remedy)
    free = processes.available_bytes()
    if patient.pid is None and free is not None and free < MEMORY_BYTES:
        remedy = "end what else runs, or give the device the lite profile"
        yield Finding("memory", Level.WARNING, f"{free // 1_048_576} MiB are left on the machine", remedy)
    elif limit is None or limit >= MEMORY_BYTES_MIN:
        yield ok("memory", f"{free // 1_048_576} MiB are left on the machine" if free is not None else "not told")


def malloc(patient: Patient) -> Iterator[Finding]:
    wanted = " ".join(f"{name}={value}" for name, value in AGENT_ENVIRONMENT.items() if value)
    if patient.pid is None:
        yield Finding("malloc", Level.SKIPPED, "no process to look at", f"start it with {wanted}")
        return
    found = processes.environment(patient.pid)
    if found is None:
        yield Finding("malloc", Level.SKIPPED, "its environment may not be looked at", "ask as root")
        return
    # The service gives its interpreter an option instead, and it is a small matter.
    needed = {name: value for name, value in AGENT_ENVIRONMENT.items() if name != "PYTHONOPTIMIZE"}
    missing = [name for name, value in needed.items() if found.get(name, "") != value]
    if missing:
        remedy = f"start it with {wanted}: without them it takes up to twice the memory"
        yield Finding("malloc", Level.WARNING, f"not as they should be: {', '.join(missing)}", remedy)
    else:
        yield ok("malloc", "set")


def _existing_parent(folder: Path) -> Path:
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
