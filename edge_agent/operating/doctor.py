"""Everything that an agent needs, looked at one by one, each with what to do about it. Nothing is changed."""

import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from contracts import releases
from contracts.errors import FieldlakeError
from edge_agent.adapters import bundle_files
from edge_agent.adapters.source_files import is_csv
from edge_agent.config import FileSource, contracts_of, load
from edge_agent.consent_terms import check_terms
from edge_agent.errors import ConfigError
from edge_agent.operating import broker_check, credentials, device_checks, source_check, spool_check
from edge_agent.operating.bundles import folder_in_force
from edge_agent.operating.findings import Finding, Level, is_healthy, lines_of, ok
from edge_agent.operating.patient import Patient, patient_of
from edge_agent.version import AGENT_VERSION

CLOCK_SLACK_S: Final = 60.0  # s that a clock may be behind the newest record before it is called wrong


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
    patient = patient_of(config, now_ms)
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
    check_terms(config, bundle)
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


CHECKS: Final[dict[str, Callable[[Patient], Iterable[Finding]]]] = {
    "process": device_checks.process,
    "folders": device_checks.folders,
    "room": device_checks.room,
    "key": device_checks.key,
    "spool": _spool,
    "identity": _identity,
    "clock": device_checks.clock,
    "broker": _broker,
    "bundle": _bundle,
    "sources": _sources,
    "memory": device_checks.memory,
    "malloc": device_checks.malloc,
}
