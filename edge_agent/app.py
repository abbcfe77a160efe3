"""Wiring: a configuration to a running agent."""

import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from edge_agent.adapters import bundle_files
from edge_agent.adapters.cipher import open_cipher
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.mqtt import MqttUplink, QueueInbox
from edge_agent.adapters.process import WallClock, pss_mb
from edge_agent.adapters.source_files import first_line_crc32, open_source
from edge_agent.agent import Agent, Settings
from edge_agent.config import AgentConfig
from edge_agent.core.identity import FORMAT, Identity, open_spool
from edge_agent.core.intake import Intake
from edge_agent.core.link import Wake
from edge_agent.core.retention import Retention
from edge_agent.core.spool import Spool
from edge_agent.errors import SourceError, SpoolError
from edge_agent.feeds import Feed, Feeds
from edge_agent.ports import Source
from edge_agent.report import Report

KEY_FILE: Final = "spool.key"


def run(config: AgentConfig) -> int:
    """Run an agent until it is done or told to stop by SIGTERM or SIGINT; print its ledger; return the exit code."""
    clock = WallClock()
    path = Path(config.source.file)
    wanted = Identity(
        config.device, config.source.contract, first_line_crc32(path), clock.now_ms() // 1_000, format=FORMAT
    )
    bundle_dir = Path(config.bundle_dir)
    bundle = bundle_files.load(bundle_dir)
    spool = open_spool(
        FolderDisk(Path(config.spool_dir)),
        wanted,
        open_cipher(Path(config.spool.key_file or Path(config.spool_dir) / KEY_FILE)),
        Retention(int(config.spool.ring_hours * 3_600_000), config.spool.ring_bytes if config.spool.ring_hours else 0),
        config.spool.quota_bytes,
    )
    plan = bundle_files.plan_of(
        bundle,
        bundle_dir,
        device=config.device,
        shard=config.shard,
        epoch=spool.epoch,
        streams={config.source.contract: path.suffix == ".csv"},
        stores=config.spool.ring_hours > 0,
    )
    intake = Intake(plan, spool.recovered.newest)
    source = open_source(path, follow=not config.until_drained)
    resume(intake, spool, {config.source.contract: source})
    inbox = QueueInbox()
    uplink = MqttUplink(config.mqtt, config.device, config.shard, inbox)
    feed = Feed(config.source.contract, source, config.source.rate_events_per_s, config.flush_interval_ms / 1_000)
    status = Path(config.status_file)
    agent = Agent(
        Settings(config.device, config.until_drained), intake, spool, Feeds((feed,)), uplink, inbox, clock,
        random.SystemRandom().random, pss_mb, lambda report: write_status(status, report),
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


def resume(intake: Intake, spool: Spool, sources: Mapping[str, Source]) -> None:
    """Bring sources and open windows to where the spool ends.

    Raises SourceError when a source is another by now, SpoolError when the spool cannot be read.
    """
    try:
        for replayed in spool.replay(intake.resume_seqs()):
            intake.refill(replayed)
    except OSError as error:
        raise SpoolError(
            f"spool: a segment cannot be read: {error.strerror}: check the disk, then start again"
        ) from error
    for contract, source in sources.items():
        wanted = intake.next_seq(contract)
        if (found := source.skip(wanted)) != wanted:
            raise SourceError(
                f"source of {contract}: the spool was filled up to event {wanted}, the file has only {found}: give it "
                "the file it had, or another spool_dir"
            )


def write_status(path: Path, report: Report) -> None:
    """Replace the status file."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(msgspec.json.encode(report))
    os.replace(temporary, path)
