"""Wiring: a configuration to a running agent."""

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from contracts.bundle import Bundle
from contracts.ports import Clock
from edge_agent.adapters import bundle_files
from edge_agent.adapters.cipher import cipher_of, open_key
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.epochs import EpochFile
from edge_agent.adapters.identity import IdentityFolder
from edge_agent.adapters.mqtt import MqttUplink, QueueInbox
from edge_agent.adapters.opening import open_file, open_pushed
from edge_agent.adapters.process import Trimming, WallClock, pss_mb
from edge_agent.adapters.rotation import Rotation
from edge_agent.adapters.service_manager import ServiceManager
from edge_agent.adapters.source_files import first_line_crc32, is_csv
from edge_agent.agent import Agent, Settings
from edge_agent.config import (
    AgentConfig,
    FileSource,
    MqttConfig,
    contracts_of,
)
from edge_agent.consent import ConsentDesk
from edge_agent.consent_terms import check_terms, open_consent
from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Parts, Plan
from edge_agent.core.sources.pacing import CHUNK_EVENTS_MAX, LITE_CHUNK_EVENTS_MAX
from edge_agent.core.sources.producers import Producers
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.record import Meta
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.spool import Spool
from edge_agent.core.uplink.link import RenewalNews, Wake
from edge_agent.errors import IdentityError, SourceError, SpoolError
from edge_agent.feeds import Feed, Feeds
from edge_agent.logs import BoundedHandler
from edge_agent.ports import Source
from edge_agent.reception import Reception
from edge_agent.report import Report
from edge_agent.status_teller import StatusTeller

if TYPE_CHECKING:
    from edge_agent.bundle_wiring import RepositorySupply

KEY_FILE: Final = "spool.key"


class _Stored(NamedTuple):
    """What an agent keeps over its restarts; `desk` and `persons` are there where events need people's consent."""

    disk: FolderDisk
    epochs: EpochFile
    spool: Spool
    desk: ConsentDesk
    persons: PersonKeys


def run(config: AgentConfig, log: BoundedHandler | None = None) -> int:
    """Run an agent until it is done or told to stop by SIGTERM or SIGINT; print its ledger; return the exit code."""
    clock = WallClock()
    rng = random.SystemRandom()
    inbox = QueueInbox()
    stored = _open_stored(config, clock)
    spool, newest = stored.spool, stored.spool.recovered.newest
    holder = _Credentials(config.mqtt)
    supply = _supply(config, spool.epoch, holder, clock, rng, inbox)
    begun = supply.begin(newest.release if newest is not None else 0) if supply is not None else None
    if supply is not None and begun is None:
        return 0  # told to stop before there was a first release
    plan = begun.plan if begun is not None else _fixed_plan(config, spool.epoch)
    before = begun.before if begun is not None else None
    intake = Intake(before or plan, newest, stored.persons)
    reception = _reception(config, inbox, newest, stored.desk)
    sources = {source.contract: open_file(source, stored.disk) for source in _files(config)}
    resume(intake, spool, sources, clock.now_ms())
    if before is not None:
        intake.adopt(Parts(plan), clock.now_ms())
    teller = StatusTeller(Path(config.status_file), ServiceManager(os.environ), log)

    trimming = Trimming()

    def tell(report: Report) -> None:
        trimming.turn()
        stored.epochs.note(report.epoch, report.ack)
        teller.tell(report)

    uplink = MqttUplink(config.mqtt, config.device, config.shard, inbox, holder.files)
    agent = Agent(
        _settings(config), intake, spool, _feeds(config, sources), reception,
        uplink, inbox, clock, rng.random, pss_mb, tell, time.process_time,
    )  # fmt: skip
    agent.bundles = supply.swaps(intake) if supply is not None else None
    agent.answer_pulls(stores=config.spool.ring_hours > 0)
    agent.certificates = holder.rotation = _rotation(config, agent, uplink, inbox, clock, rng)
    _stop_on_signals(agent, inbox)
    report = agent.run()
    teller.close()
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()
    return agent.exit_code(report)


def _open_stored(config: AgentConfig, clock: Clock) -> _Stored:
    folder = Path(config.spool_dir)
    disk = FolderDisk(folder)
    key = open_key(Path(config.spool.key_file or folder / KEY_FILE))
    desk, persons = open_consent(disk, key, clock)
    epochs = EpochFile(folder)
    spool = open_spool(
        disk,
        _identity(config, epochs.next_after(clock.now_ms())),
        cipher_of(key),
        Retention(int(config.spool.ring_hours * 3_600_000), config.spool.ring_bytes if config.spool.ring_hours else 0),
        config.spool.quota_bytes,
        persons,
    )
    epochs.note(spool.epoch)
    if spool.recovered.newest is None:
        # Its epoch is this second: a spool that is made after it must not have the same.
        time.sleep(1.0 - time.time() % 1.0)
    return _Stored(disk, epochs, spool, desk, persons)


def _files(config: AgentConfig) -> list[FileSource]:
    return [source for source in config.sources if isinstance(source, FileSource)]


def _reception(config: AgentConfig, inbox: QueueInbox, newest: Meta | None, desk: ConsentDesk) -> Reception:
    return Reception(
        [open_pushed(source, inbox.put) for source in config.sources if not isinstance(source, FileSource)],
        {contract for source in config.sources for contract in contracts_of(source)}
        - {file.contract for file in _files(config)},
        newest.producers if newest is not None else Producers(),
        desk,
        {source.name: contracts_of(source) for source in config.sources},
    )


def _feeds(config: AgentConfig, sources: Mapping[str, Source]) -> Feeds:
    flush_interval_s = config.flush_interval_ms / 1_000
    events_max = LITE_CHUNK_EVENTS_MAX if config.profile == "lite" else CHUNK_EVENTS_MAX
    rates = {file.contract: file.rate_events_per_s for file in _files(config)}
    return Feeds([Feed(name, source, rates[name], flush_interval_s, events_max) for name, source in sources.items()])


def _rotation(
    config: AgentConfig, agent: Agent, uplink: MqttUplink, inbox: QueueInbox, clock: Clock, rng: random.Random
) -> Rotation | None:
    if config.mqtt.identity_dir is None:
        return None
    return Rotation(
        Path(config.mqtt.identity_dir),
        config.device,
        put=lambda event: inbox.put(RenewalNews(event)),
        publish=uplink.request_certificate,
        reconnect=agent.reconnect,
        clock=clock,
        random=rng.random,
    )


def _stop_on_signals(agent: Agent, inbox: QueueInbox) -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        agent.stop()
        inbox.put(Wake())

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


class _Credentials:
    """The files that the next connection shows: those of the configuration, or those that a rotation is at."""

    def __init__(self, config: MqttConfig) -> None:
        self._config = config
        self.rotation: Rotation | None = None

    def files(self) -> tuple[str, str]:
        if self._config.cert_file is not None and self._config.key_file is not None:
            return self._config.cert_file, self._config.key_file
        if self.rotation is not None:
            generation = self.rotation.credentials()
        else:
            assert self._config.identity_dir is not None
            found = IdentityFolder(Path(self._config.identity_dir)).current()
            if found is None:
                raise IdentityError(f"identity {self._config.identity_dir}: not enrolled: give it an invitation")
            generation = found
        return generation.cert_file, generation.key_file


def _identity(config: AgentConfig, epoch: int) -> Identity:
    # A followed file is one of several, of which the first may be gone.
    sources = {file.contract: first_line_crc32(Path(file.file)) for file in _files(config) if not file.follow}
    return Identity(config.device, epoch, sources, FORMAT)


def _supply(
    config: AgentConfig, epoch: int, holder: _Credentials, clock: Clock, rng: random.Random, inbox: QueueInbox
) -> "RepositorySupply | None":
    if config.bundles is None:
        return None
    # Only here: what tries and swaps bundles is nothing that a device with a fixed one needs memory for.
    from edge_agent.bundle_wiring import RepositorySupply

    def planned(bundle: Bundle, folder: Path) -> Plan:
        return _plan_of(config, epoch, bundle, folder)

    def wake() -> None:
        inbox.put(Wake())

    return RepositorySupply(config, config.bundles, planned, holder.files, clock, rng.random, wake)


def _fixed_plan(config: AgentConfig, epoch: int) -> Plan:
    assert config.bundle_dir is not None
    folder = Path(config.bundle_dir)
    return _plan_of(config, epoch, bundle_files.load(folder), folder)


def _plan_of(config: AgentConfig, epoch: int, bundle: Bundle, folder: Path) -> Plan:
    check_terms(config, bundle)
    texts = {source.contract for source in _files(config) if is_csv(source.file)}
    return bundle_files.plan_of(
        bundle,
        folder,
        device=config.device,
        shard=config.shard,
        epoch=epoch,
        streams={name: name in texts for source in config.sources for name in contracts_of(source)},
        stores=config.spool.ring_hours > 0,
        profile=config.profile,
    )


def resume(intake: Intake, spool: Spool, sources: Mapping[str, Source], now_ms: int) -> None:
    """Bring sources, open windows and what rules remember to where the spool ends.

    Raises SourceError when a source is another by now, SpoolError when the spool cannot be read.
    """
    first_seqs = intake.resume_seqs()
    for contract, horizon_ms in intake.horizons_ms().items():
        first_seq = spool.seq_since(contract, now_ms - horizon_ms)
        if first_seq is not None:
            first_seqs[contract] = min(first_seqs[contract], first_seq)
    try:
        for replayed in spool.replay(first_seqs):
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


def _settings(config: AgentConfig) -> Settings:
    return Settings(
        config.device,
        config.until_drained,
        frozenset(contract for source in config.sources for contract in contracts_of(source)),
        config.metrics_interval_s,
        os.getpid(),
    )
