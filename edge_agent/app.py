"""Wiring: a configuration to a running agent."""

import os
import random
import signal
import sys
from pathlib import Path
from types import FrameType

import msgspec

from edge_agent.adapters import bundle_files
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.mqtt import MqttUplink, QueueInbox
from edge_agent.adapters.process import WallClock, pss_mb
from edge_agent.adapters.source_files import first_line_crc32, open_source
from edge_agent.agent import Agent, Settings
from edge_agent.config import AgentConfig
from edge_agent.core.intake import Intake
from edge_agent.core.link import Wake
from edge_agent.core.pacing import CHUNK_EVENTS_MAX
from edge_agent.core.recovery import FORMAT, Identity
from edge_agent.core.spool import open_spool
from edge_agent.errors import SourceError
from edge_agent.ports import Source
from edge_agent.report import Report


def run(config: AgentConfig) -> int:
    """Run an agent until it is done or told to stop by SIGTERM or SIGINT; print its ledger; return the exit code."""
    clock = WallClock()
    path = Path(config.source.file)
    wanted = Identity(
        config.device, config.source.contract, first_line_crc32(path), clock.now_ms() // 1_000, format=FORMAT
    )
    bundle_dir = Path(config.bundle_dir)
    bundle = bundle_files.load(bundle_dir)
    spool = open_spool(FolderDisk(Path(config.spool_dir)), wanted)
    plan = bundle_files.plan_of(
        bundle,
        bundle_dir,
        device=config.device,
        shard=config.shard,
        epoch=spool.epoch,
        contract_id=config.source.contract,
        lax=path.suffix == ".csv",
    )
    intake = Intake(plan, spool.recovered.newest)
    source = open_source(path, follow=not config.until_drained)
    resume(intake, source, config.source.file)
    inbox = QueueInbox()
    uplink = MqttUplink(config.mqtt, config.device, config.shard, inbox)
    settings = Settings(
        device=config.device,
        contract=config.source.contract,
        rate_events_per_s=config.source.rate_events_per_s,
        flush_interval_s=config.flush_interval_ms / 1_000,
        until_drained=config.until_drained,
    )
    status = Path(config.status_file)
    agent = Agent(
        settings, intake, spool, source, uplink, inbox, clock, random.SystemRandom().random, pss_mb,
        lambda report: write_status(status, report),
    )  # fmt: skip

    def stop(_number: int, _frame: FrameType | None) -> None:
        agent.stop()
        inbox.put(Wake())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    report = agent.run()
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()
    return agent.exit_code(report)


def resume(intake: Intake, source: Source, name: str) -> None:
    """Bring source and open windows to where the spool ends. Raises SourceError when the source is another by now."""
    first_seq = intake.resume_seq
    at = source.skip(first_seq)
    while first_seq <= at < intake.next_seq:
        lines = source.read(min(CHUNK_EVENTS_MAX, intake.next_seq - at))
        if not lines:
            break
        intake.refill(at, lines)
        at += len(lines)
    if at != intake.next_seq or not intake.is_refilled():
        raise SourceError(
            f"source {name}: the spool was filled up to event {intake.next_seq}, the file has other events or only "
            f"{at}: give it the file it had, or another spool_dir"
        )


def write_status(path: Path, report: Report) -> None:
    """Replace the status file."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(msgspec.json.encode(report))
    os.replace(temporary, path)
