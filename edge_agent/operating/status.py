"""How an agent fares: what its status file says, whether its process is there, and what that means."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from edge_agent.config import AgentConfig
from edge_agent.errors import ConfigError, IdentityError
from edge_agent.operating import credentials, processes
from edge_agent.operating.findings import Finding, Level, is_healthy, lines_of, ok
from edge_agent.report import BundleReport, Report

SILENT_S: Final = 30.0  # s; the status is written every second, a full second of a busy disk many times over
LAG_S: Final = 600.0  # s; with a link, twenty times what a resend takes
CERTIFICATE_S: Final = 2 * 86_400.0  # s; a device renews a week before, so a renewal has failed for days by then
PSS_MB_MAX: Final = 100.0  # MB; the service is ended at 128

_SHORT: Final = {"ring": Level.WARNING, "coarse": Level.WARNING, "slow": Level.BAD, "drop": Level.BAD}


class Status(Struct, frozen=True):
    """One agent. `report` is the newest it wrote, None before its first; times are Unix times in milliseconds."""

    device: str
    config_file: str
    runs: bool
    report: Report | None
    written_ago_s: float | None
    certificate_ends_ms: int | None
    sources: tuple[str, ...]
    findings: tuple[Finding, ...]
    healthy: bool


def observe(config: AgentConfig, config_file: Path, now_ms: int) -> Status:
    """Look at the agent of a configuration. Raises ConfigError when its status file is not one."""
    report = read_report(Path(config.status_file))
    running = report is not None and processes.runs(report.health.pid)
    ago_s = (now_ms - report.health.written_ms) / 1_000 if report is not None else None
    ends_ms, certificate = _certificate(config, now_ms)
    findings = (*_judged(config, report, running, ago_s or 0.0), *certificate)
    return Status(
        device=config.device,
        config_file=str(config_file),
        runs=running,
        report=report,
        written_ago_s=ago_s,
        certificate_ends_ms=ends_ms,
        sources=tuple(f"{source.name} ({source.__struct_config__.tag})" for source in config.sources),
        findings=findings,
        healthy=is_healthy(findings),
    )


def read_report(path: Path) -> Report | None:
    """Return an agent's newest report, None before its first. Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"status file {path}: {error.strerror}: ask as the agent's user, or as root") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"status file {path}: {error}: ask with the agent's own version") from error


def text_of(status: Status) -> str:
    """Return a status for a terminal."""
    lines = [f"device      {status.device}", f"config      {status.config_file}"]
    if status.report is not None:
        lines += list(_figures(status.report))
    lines.append(f"sources     {', '.join(status.sources)}")
    lines += ["", *lines_of(status.findings), ""]
    lines.append("healthy" if status.healthy else "NOT healthy")
    return "\n".join(lines) + "\n"


def _figures(report: Report) -> Iterable[str]:
    health = report.health
    yield f"agent       {health.agent_version}, process {health.pid}"
    yield f"bundle      {_bundle(report.bundle)}"
    yield f"link        {report.link}"
    yield f"lag         {health.lag_events} rows, the oldest waits {health.lag_ms / 1_000:.1f} s"
    room = f"{_mb(report.spool_bytes)} of {_mb(health.quota_bytes)}"
    yield f"spool       {room} to send, ring {_mb(report.ring_bytes)}"
    batches = f"{report.pending_batches} batches, {report.held_batches} of them refused"
    yield f"waiting     {batches}, and {report.waiting_segments} segments"
    yield f"memory      {report.pss_mb} MB" if report.pss_mb is not None else "memory      not told"
    yield f"ladder      {report.given_up}"
    if (consent := report.consent) is not None:
        waiting = f"{consent.waiting_events} events of {consent.waiting_persons} people wait in memory"
        yield f"consent     {consent.granted} granted, {consent.refused} refused, {waiting}"
    for stream, sums in sorted(report.streams.items()):
        yield (
            f"  {stream:<24} observed {sums.observed}, kept {sums.kept}, aggregated {sums.aggregated}, "
            f"dropped {sum(sums.dropped.values())}, lost {sums.lost}, in the lake up to {sums.committed_upto}"
        )
    if report.last_error:
        yield f"last error  {report.last_error}"


def _bundle(bundle: BundleReport) -> str:
    said = bundle.version if bundle.release is None else f"{bundle.version}, release {bundle.release}"
    if bundle.candidate is not None:
        said += f"; {bundle.state} of release {bundle.candidate}"
    if bundle.looked:
        said += f"; last look: {bundle.looked}"
    return said


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _judged(config: AgentConfig, report: Report | None, running: bool, ago_s: float) -> Iterable[Finding]:
    if report is None:
        remedy = "start it; if it does not stay, its log says why, and so does `doctor`"
        yield Finding("process", Level.BAD, f"no agent has written {config.status_file} yet", remedy)
        return
    yield _process(config, report, running, ago_s)
    yield _link(report, running)
    yield _ledger(report)
    if report.held_batches:
        remedy = f"{report.last_error or 'its log says why'}; then start it again"
        yield Finding("refused", Level.BAD, f"{report.held_batches} batches were refused by the broker", remedy)
    if (level := _SHORT.get(report.given_up)) is not None:
        yield Finding("disk", level, f"short: {report.given_up} is given up", "free some disk, or mend the link")
    else:
        yield ok("disk", "nothing is given up")
    if running and report.pss_mb is not None and report.pss_mb > PSS_MB_MAX:
        yield Finding("memory", Level.WARNING, f"{report.pss_mb} MB", "start it again, and report the bundle it runs")
    for trouble in report.troubles:
        yield Finding("trouble", Level.BAD, trouble)


def _process(config: AgentConfig, report: Report, running: bool, ago_s: float) -> Finding:
    if not running:
        if config.until_drained and report.drained:
            return ok("process", f"ended {ago_s:.0f} s ago, the lake has everything")
        return Finding(
            "process", Level.BAD, f"not running, was there {ago_s:.0f} s ago", "start it; its log says why it ended"
        )
    if ago_s > SILENT_S:
        remedy = "start it again, and keep its log; where its disk is full, free that first"
        return Finding("process", Level.BAD, f"runs, and has said nothing for {ago_s:.0f} s", remedy)
    return ok("process", "runs")


def _link(report: Report, running: bool) -> Finding:
    lag_s = report.health.lag_ms / 1_000
    if report.link != "up":
        if not running:
            return Finding("link", Level.SKIPPED, "no process, no link")
        return Finding(
            "link", Level.WARNING, f"down: {report.last_error or 'no reason known'}", "events wait on the disk"
        )
    if lag_s > LAG_S:
        return Finding("link", Level.BAD, f"up, and the lake is {lag_s:.0f} s behind", "look at gateway and ingest")
    return ok("link", f"up, the lake is {lag_s:.1f} s behind")


def _ledger(report: Report) -> Finding:
    if report.unexplained:
        remedy = "keep spool and log, and report it: this must not happen"
        return Finding("ledger", Level.BAD, f"{report.unexplained} events are unexplained", remedy)
    lost = sum(sums.lost for sums in report.streams.values())
    if lost:
        return Finding("ledger", Level.WARNING, f"adds up; {lost} events were lost, as it says", "check the disk")
    return ok("ledger", "adds up")


def _certificate(config: AgentConfig, now_ms: int) -> tuple[int | None, tuple[Finding, ...]]:
    try:
        found = credentials.read_certificate(credentials.files_of(config.mqtt)[0])
    except OSError as error:
        return None, (Finding("certificate", Level.SKIPPED, f"cannot be read: {error.strerror}", "ask as root"),)
    except IdentityError as error:
        return None, (Finding("certificate", Level.BAD, str(error)),)
    left_s = (found.not_after_ms - now_ms) / 1_000
    if left_s <= 0:
        finding = Finding("certificate", Level.BAD, f"ended {-left_s / 86_400:.1f} days ago", "enrol the device again")
    elif left_s < CERTIFICATE_S:
        remedy = "renewal fails; the log says why"
        finding = Finding("certificate", Level.WARNING, f"ends in {left_s / 3_600:.0f} hours", remedy)
    else:
        finding = ok("certificate", f"good for {left_s / 86_400:.0f} days")
    return found.not_after_ms, (finding,)
