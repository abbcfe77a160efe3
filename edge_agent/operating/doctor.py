"""Everything that an agent needs, looked at one by one, each with what to do about it. Nothing is changed."""

import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from contracts import releases
from contracts.errors import FieldlakeError
from edge_agent.adapters import bundle_files
from edge_agent.adapters.cipher import KEY_BYTES
from edge_agent.adapters.source_files import is_csv
from edge_agent.app import KEY_FILE
from edge_agent.config import AgentConfig, FileSource, contracts_of, load
from edge_agent.core.spool.pressure import RESERVE_BYTES, SCARCE_BYTES
from edge_agent.environment import AGENT_ENVIRONMENT
from edge_agent.errors import ConfigError
from edge_agent.operating import broker_check, credentials, processes, source_check, spool_check
from edge_agent.operating.bundles import folder_in_force
from edge_agent.operating.findings import Finding, Level, is_healthy, lines_of, ok
from edge_agent.operating.status import read_report
from edge_agent.version import AGENT_VERSION

MEMORY_BYTES: Final = 134_217_728  # bytes; what the service is ended at
MEMORY_BYTES_MIN: Final = 100_663_296  # bytes; an agent with a model was tried for long within 96 MiB
CLOCK_ERROR: Final = 5  # TIME_ERROR of adjtimex(2): nothing keeps the clock right
CLOCK_SLACK_S: Final = 60.0  # s that a clock may be behind the newest record before it is called wrong


class Patient(Struct, frozen=True):
    """What is looked at. `pid` is of the agent that runs, None when none does."""

    config: AgentConfig
    pid: int | None
    now_ms: int

    @property
    def spool_dir(self) -> Path:
        """The spool's folder."""
        return Path(self.config.spool_dir)

    @property
    def key_file(self) -> Path:
        """The spool's key."""
        return Path(self.config.spool.key_file or self.spool_dir / KEY_FILE)


class Diagnosis(Struct, frozen=True):
    """All findings, in the order in which they were looked for."""

    device: str
    config_file: str
    findings: tuple[Finding, ...]
    healthy: bool


def examine(config_file: Path, now_ms: int, *, offline: bool = False) -> Diagnosis:
    """Look at everything; with `offline` not at the broker. Never raises for what it finds."""
    try:
        config = load(config_file)
    except ConfigError as error:
        finding = Finding("configuration", Level.BAD, str(error), "correct the file; `reference.md` lists every key")
        return Diagnosis("", str(config_file), (finding,), healthy=False)
    patient = Patient(config, _pid_of(config), now_ms)
    findings = [ok("configuration", f"{config_file} is understood")]
    for name, check in CHECKS.items():
        if offline and name == "broker":
            findings.append(Finding(name, Level.SKIPPED, "not asked for"))
            continue
        findings += _found(name, check, patient)
    return Diagnosis(config.device, str(config_file), tuple(findings), is_healthy(findings))


def text_of(diagnosis: Diagnosis) -> str:
    """Return a diagnosis for a terminal."""
    head = f"device {diagnosis.device or 'unknown'}, {diagnosis.config_file}"
    verdict = "healthy" if diagnosis.healthy else "NOT healthy"
    return "\n".join((head, "", *lines_of(diagnosis.findings), "", verdict)) + "\n"


def _found(name: str, check: Callable[[Patient], Iterable[Finding]], patient: Patient) -> list[Finding]:
    """Run one check; what stops it is its finding."""
    findings: list[Finding] = []
    try:
        findings.extend(check(patient))
    except PermissionError as error:
        remedy = "ask as the agent's user, or as root"
        findings.append(Finding(name, Level.SKIPPED, f"{error.filename}: {error.strerror}", remedy))
    except (FieldlakeError, OSError) as error:
        findings.append(Finding(name, Level.BAD, str(error)))
    return findings


def _pid_of(config: AgentConfig) -> int | None:
    try:
        report = read_report(Path(config.status_file))
    except ConfigError:
        return None
    return report.health.pid if report is not None and processes.runs(report.health.pid) else None


def _process(patient: Patient) -> Iterator[Finding]:
    yield ok("process", f"runs as {patient.pid}" if patient.pid is not None else "does not run")


def _folders(patient: Patient) -> Iterator[Finding]:
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


def _room(patient: Patient) -> Iterator[Finding]:
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


def _key(patient: Patient) -> Iterator[Finding]:
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


def _spool(patient: Patient) -> Iterator[Finding]:
    if patient.pid is not None:
        remedy = "stop the agent to have every batch read"
        yield Finding("spool", Level.SKIPPED, "an agent writes to it", remedy)
        return
    found = spool_check.look(patient.spool_dir, patient.key_file, patient.config.device)
    if found is None:
        yield ok("spool", "none yet")
        return
    said = f"epoch {found.epoch}, {found.batches} batches to send in {found.owed_bytes / 1e6:.1f} MB"
    if found.is_whole:
        torn = f"; {found.torn_bytes} torn bytes at the end, which a start cuts off" if found.torn_bytes else ""
        yield ok("spool", said + torn)
    else:
        cursor = ", the cursor has rotted" if found.cursor_rotted else ""
        remedy = "check the disk; the agent goes on and says in the ledger what is lost"
        rotted = f"{found.rotted_records} records have rotted, {found.rotted} batches with them, "
        rotted += f"{found.gaps} ranges are missing{cursor}"
        yield Finding("spool", Level.BAD, f"{said}; {rotted}", remedy)
    if found.newest_ms > patient.now_ms + CLOCK_SLACK_S * 1_000:
        ahead_s = (found.newest_ms - patient.now_ms) / 1_000
        yield Finding("clock", Level.BAD, f"is {ahead_s:.0f} s behind the newest record", "set the clock")


def _identity(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    cert_file, key_file = credentials.files_of(config.mqtt)
    found = credentials.read_certificate(cert_file)
    broker_check.context_of(config.mqtt, cert_file, key_file)
    mode = stat.S_IMODE(key_file.stat().st_mode)
    left_s = (found.not_after_ms - patient.now_ms) / 1_000
    if found.name != config.device:
        remedy = "the broker knows the device by its certificate: correct `device`, or enrol it under this name"
        yield Finding("identity", Level.BAD, f"{cert_file} is of {found.name!r}, not {config.device!r}", remedy)
    elif left_s <= 0:
        yield Finding(
            "identity", Level.BAD, f"{cert_file} ended {-left_s / 86_400:.1f} days ago", "enrol the device again"
        )
    elif patient.now_ms < found.not_before_ms:
        yield Finding("identity", Level.BAD, f"{cert_file} is not good yet", "set the clock")
    elif mode & 0o077:
        yield Finding("identity", Level.BAD, f"{key_file} has mode {mode:03o}", f"run `chmod 600 {key_file}`")
    else:
        yield ok("identity", f"{found.name}, good for {left_s / 86_400:.1f} days")


def _clock(_patient: Patient) -> Iterator[Finding]:
    # 208 bytes of struct timex; with modes 0 nothing is set.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == CLOCK_ERROR:
        remedy = "switch on time synchronisation, for example `timedatectl set-ntp true`"
        yield Finding("clock", Level.WARNING, "nothing keeps it right, says the kernel", remedy)
    else:
        yield ok("clock", "kept right, says the kernel")


def _broker(patient: Patient) -> Iterator[Finding]:
    config = patient.config.mqtt
    context = broker_check.context_of(config, *credentials.files_of(config))
    where = f"{config.host}:{config.port}"
    try:
        if patient.pid is not None:
            # Logging in would take the session over from the agent.
            tls = broker_check.handshake(config, context)
            yield ok("broker", f"{where}, {tls}; whether it lets the device in, `status` says")
            return
        answer = broker_check.connect(config, context, patient.config.device)
    except OSError as error:
        remedy = "check network, address and certificates; until then events wait on the disk"
        yield Finding("broker", Level.BAD, f"{where}: {error}", remedy)
        return
    if answer.refusal:
        remedy = "look at the device in `fieldlake device list`: revoked, or enrolled under another name?"
        yield Finding("broker", Level.BAD, f"{where}, {answer.tls}: {answer.refusal}", remedy)
    else:
        yield ok("broker", f"{where}, {answer.tls}, lets the device in")


def _bundle(patient: Patient) -> Iterator[Finding]:
    config = patient.config
    folder = folder_in_force(config)
    bundle = bundle_files.load(folder)
    lax = {source.contract: is_csv(source.file) for source in config.sources if isinstance(source, FileSource)}
    streams = {name: lax.get(name, False) for source in config.sources for name in contracts_of(source)}
    bundle_files.plan_of(
        bundle,
        folder,
        device=config.device,
        shard=config.shard,
        epoch=0,
        streams=streams,
        stores=False,
        profile=config.profile,
    )
    release = bundle.release
    if release is not None and releases.version_order(release.agent_version_min) > releases.version_order(
        AGENT_VERSION
    ):
        remedy = f"install agent {release.agent_version_min} or newer"
        yield Finding("bundle", Level.BAD, f"{bundle.version} is not for agent {AGENT_VERSION}", remedy)
        return
    number = f", release {release.number} of group {release.group}" if release is not None else ", not a release"
    yield ok("bundle", f"{bundle.version}{number}, every file is the one named")


def _sources(patient: Patient) -> Iterator[Finding]:
    for source in patient.config.sources:
        yield from source_check.look(source, runs=patient.pid is not None)


def _memory(patient: Patient) -> Iterator[Finding]:
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


def _malloc(patient: Patient) -> Iterator[Finding]:
    wanted = " ".join(f"{name}={value}" for name, value in AGENT_ENVIRONMENT.items())
    if patient.pid is None:
        yield Finding("malloc", Level.SKIPPED, "no process to look at", f"start it with {wanted}")
        return
    found = processes.environment(patient.pid)
    if found is None:
        yield Finding("malloc", Level.SKIPPED, "its environment may not be looked at", "ask as root")
        return
    missing = [name for name, value in AGENT_ENVIRONMENT.items() if found.get(name) != value]
    if missing:
        remedy = f"start it with {wanted}: without them it takes up to twice the memory"
        yield Finding("malloc", Level.WARNING, f"not set: {', '.join(missing)}", remedy)
    else:
        yield ok("malloc", "set")


CHECKS: Final[dict[str, Callable[[Patient], Iterable[Finding]]]] = {
    "process": _process,
    "folders": _folders,
    "room": _room,
    "key": _key,
    "spool": _spool,
    "identity": _identity,
    "clock": _clock,
    "broker": _broker,
    "bundle": _bundle,
    "sources": _sources,
    "memory": _memory,
    "malloc": _malloc,
}


def _existing_parent(folder: Path) -> Path:
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
