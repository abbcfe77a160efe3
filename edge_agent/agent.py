"""The loop of a running agent: lines from the source into the spool; its other half, the courier, sends them."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from contracts.ports import Clock
from edge_agent.consent import ConsentDesk
from edge_agent.consent_accounts import ConsentAccounts, Lake
from edge_agent.core.accounts import stream_sums
from edge_agent.core.intake import Intake
from edge_agent.core.sources.offers import Asked, Offered, SourceFailed
from edge_agent.core.spool.pressure import COARSE_FACTOR, RESERVE_BYTES, SLOW_FLUSH_S, Step, fullness, step_after
from edge_agent.core.spool.retention import Retention
from edge_agent.core.spool.spool import Group, Spool
from edge_agent.core.uplink.link import (
    AckArrived,
    BundleAnnounced,
    CertificateArrived,
    LinkDown,
    LinkEvent,
    PullArrived,
    RenewalNews,
)
from edge_agent.core.uplink.sending import Lane
from edge_agent.courier import Courier
from edge_agent.errors import SpoolWriteError
from edge_agent.feeds import Feeds
from edge_agent.gauges import Gauges
from edge_agent.ports import Certificates, Inbox, Uplink
from edge_agent.pulls import Pulls
from edge_agent.reception import Reception
from edge_agent.report import BundleReport, Report, wire_report

if TYPE_CHECKING:
    from edge_agent.bundle_swaps import BundleSwaps

STATUS_S: Final = 1.0  # s
WRITE_RETRY_S: Final = 1.0  # s; a full disk does not empty faster
PULL_SHARE: Final = 0.5  # of the quota; what is asked for later must not take the room of what happens now
PUSH_FLUSH_S: Final = 0.05  # s; what producers hand over meanwhile becomes durable with one sync
WAIT_S_MAX: Final = 1.0  # s; the longest the loop sleeps

_log = logging.getLogger(__name__)


class Settings(Struct, frozen=True):
    """What the loop must know of the configuration."""

    device: str
    until_drained: bool
    sources: frozenset[str] = frozenset()
    metrics_interval_s: float = 0.0
    pid: int = 0


class Agent:
    """One device. All of it happens in the thread that calls `run`; others only put events into its inbox."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        spool: Spool,
        feeds: Feeds,
        reception: Reception,
        uplink: Uplink,
        inbox: Inbox,
        clock: Clock,
        random: Callable[[], float],
        memory_mb: Callable[[], float | None],
        write_status: Callable[[Report], None],
        cpu_s: Callable[[], float] = float,
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._spool = spool
        self._feeds = feeds
        self._reception = reception
        self._push_s = 0.0
        self._inbox = inbox
        self._clock = clock
        self._memory_mb = memory_mb
        self._write_status = write_status
        self._last_error: str | None = None
        self._group: Group | None = None  # sealed, and not yet durable
        self._stopping = False
        self._ended: frozenset[str] = frozenset()
        self._retry_s = 0.0
        self._step = Step.NONE
        self._retention = spool.retention
        self._next_status_s = clock.monotonic_s()
        self.certificates: Certificates | None = None  # where the device looks after its own
        self.bundles: BundleSwaps | None = None  # where they come from a repository
        self._pulls: Pulls | None = None
        self._consent_accounts: ConsentAccounts | None = None
        self._courier = Courier(settings.device, spool, uplink, clock, random, self._say)
        self.gauges = Gauges(
            spool, self._courier, clock, memory_mb, cpu_s,
            settings.metrics_interval_s, settings.sources, settings.pid,
        )  # fmt: skip
        if spool.recovered.cursor_rotted:
            self._say("spool: cursor.json had rotted: sums of deleted segments may be gone, the ledger may not add up")
        if (epoch := spool.recovered.emptied_epoch) is not None:
            self._say(
                f"spool: all that was stored in epoch {epoch} is missing: what had not arrived is lost, epoch "
                f"{spool.epoch} begins: find out who removes files from the spool's folder"
            )

        if reception.consent is not None:
            self._begin_consent(reception.consent)

    def stop(self) -> None:
        """Ask the loop to end; what is not sent stays in the spool, owed ledger entries in its metadata."""
        self._stopping = True

    def answer_pulls(self, *, stores: bool) -> None:
        """Let somebody ask for events that the device still has; `stores` says whether it has a raw ring."""
        self._pulls = Pulls(self._intake, self._spool, self._say, stores=stores)

    def run(self) -> Report:
        """Run until drained (if so configured) or stopped; return the last report."""
        self._reception.start()
        self._append_if(self._intake.forgo(self._clock.now_ms()))
        while not self._stopping and not self._is_done():
            now = self._clock.monotonic_s()
            self._take_in(now)
            self._settle(now)
            self._pull()
            self._account_for_consent(now)
            self._renew()
            self._change_bundle(now)
            self._courier.advance(now)
            if now >= self._next_status_s:
                self._next_status_s = now + STATUS_S
                self._relieve()
                if self._group is None and not self._is_full():
                    self._append_if(self._taken({}))  # owed entries and idle windows, when no source is read
                self._write_status(self.report())
            for event in self._inbox.take(self._wait_s(self._clock.monotonic_s())):
                self._on_event(event)
        self._reception.send_away("the agent stops")
        if self._group is not None:
            self._append(self._group)
        if self.bundles is not None:
            self.bundles.close()
        self._courier.close()
        self._feeds.close()
        self._reception.close()
        report = self.report()
        self._write_status(report)
        return report

    def exit_code(self, report: Report) -> int:
        """Return 0 when stopped on request, or drained with every event accounted for."""
        if self._stopping:
            return 0
        return 0 if report.drained and report.unexplained == 0 else 1

    def report(self) -> Report:
        """Return the present state."""
        counts = self._spool.counts
        streams = {
            stream: stream_sums(stream, observed, counts, self._courier.committed_upto(stream))
            for stream, observed in self._spool.observed.items()
        }
        window, desk = self._courier.window, self._reception.consent
        return Report(
            device=self._settings.device,
            epoch=self._spool.epoch,
            streams=streams,
            unexplained=sum(abs(sums.unexplained) for sums in streams.values()),
            wire=wire_report(self._spool.wire),
            batches_published=window.published,
            resends=window.resent,
            pss_mb=self._memory_mb(),
            link="up" if self._courier.link_up else "down",
            source_at_end=self._feeds.is_done,
            drained=self._is_drained(),
            pending_batches=len(window),
            waiting_segments=self._courier.waiting_segments,
            held_batches=window.held,
            spool_bytes=self._spool.owed_bytes,
            ring_bytes=self._spool.size_bytes - self._spool.owed_bytes,
            given_up=self._step.name.lower(),
            last_error=self._last_error,
            troubles=self._troubles(),
            ack=self._courier.ack,
            bundle=self._bundle_report(),
            health=self.gauges.health(),
            consent=desk.report() if desk is not None and desk.is_used else None,
        )

    def _troubles(self) -> list[str]:
        found = self._reception.troubles()
        if self.certificates is not None and self.certificates.last_error:
            found.append(f"certificate: {self.certificates.last_error}")
        if self.bundles is not None and self.bundles.trouble:
            found.append(self.bundles.trouble)
        return found

    def _bundle_report(self) -> BundleReport:
        if self.bundles is not None:
            return self.bundles.report()
        plan = self._intake.parts.plan
        return BundleReport(plan.version, plan.release)

    def _is_drained(self) -> bool:
        return self._feeds.is_done and self._group is None and self._courier.is_idle

    def _is_done(self) -> bool:
        """Say whether there is nothing left to do, or nothing left that could be done before an operator has acted."""
        if not self._settings.until_drained or not self._feeds.is_done or self._group is not None:
            return False
        if self._may_pull():
            return False
        return self._courier.is_idle or self._courier.is_stuck

    def _take_in(self, now_s: float) -> None:
        """Read and take what is due, make one group of it and put it into the spool; a full spool makes all wait."""
        if self._group is not None:
            if now_s >= self._retry_s:
                self._append(self._group)
            return
        if self._is_full():
            self._reception.send_away("the spool is full: try again later")
            return
        if not self._is_due(now_s):
            return
        began_s = self._clock.monotonic_s()
        arrived = self._feeds.take(now_s)
        lines = dict(arrived.lines)
        for contract, pushed in self._reception.take().items():
            lines[contract] = [*lines.get(contract, ()), *pushed]
        self._push_s = now_s + PUSH_FLUSH_S
        if self._step >= Step.SLOW:
            self._retry_s = now_s + SLOW_FLUSH_S
        group = self._taken(lines, arrived.final)
        self._append_if(group)
        if group is not None and self._group is None:
            self.gauges.flushed(began_s)

    def _taken(self, lines: dict[str, list[bytes]], final: frozenset[str] = frozenset()) -> Group | None:
        ended = final - self._ended
        self._ended |= ended
        return self._intake.take(
            lines,
            self._clock.now_ms(),
            final=ended,
            ends=self._feeds.is_done and not self._reception.has_sources,
            step=self._step,
            producers=self._reception.producers,
            metrics=self.gauges.metrics(self._step, self._intake.parts.plan.version),
            portions=self._reception.portions(),
        )

    def _append_if(self, group: Group | None) -> None:
        """Put a group into the spool; without one, all that was taken is durable already."""
        if group is not None:
            self._append(group)
        else:
            self._reception.settle()

    def _is_due(self, now_s: float) -> bool:
        due_s = self._next_take_s()
        return due_s is not None and now_s >= due_s

    def _next_take_s(self) -> float | None:
        times = [t for t in (self._feeds.due_s, self._push_s if self._reception.is_waiting else None) if t is not None]
        return max(min(times), self._retry_s) if times else None

    def _is_full(self) -> bool:
        return self._spool.owed_bytes >= self._spool.quota_bytes

    def _append(self, group: Group) -> None:
        try:
            pending = self._spool.append(group)
        except SpoolWriteError as error:
            self._group = group
            self._retry_s = self._clock.monotonic_s() + WRITE_RETRY_S
            self._say(str(error))
            return
        self._group = None
        self._courier.add(pending, Lane.BACKLOG if group.is_backlog else Lane.LIVE)
        self._reception.settle()

    def _relieve(self) -> None:
        """Give up what the disk has no room for, in the order of the ladder, and take it up again."""
        full = fullness(self._spool.owed_bytes, self._spool.quota_bytes, self._spool.free_bytes())
        step = step_after(self._step, full)
        if step is not self._step:
            self._say(f"spool: {full:.0%} full: on step {step.name} of what is given up, before {self._step.name}")
        self._step = step
        self._spool.retention = self._retention if step < Step.RING else Retention()
        self._intake.coarsen(COARSE_FACTOR if step >= Step.COARSE else 1)
        free_bytes = self._spool.free_bytes()
        if free_bytes is None or free_bytes > 2 * RESERVE_BYTES:
            self._spool.reserve.keep(RESERVE_BYTES)

    def _settle(self, now_s: float) -> None:
        """Account for batches that rotted, now that the lake has said which of them it holds."""
        if self._group is None and (damages := self._courier.damages_due(now_s)):
            self._courier.settled(damages)
            if settled := tuple(filter(self._intake.may_settle, damages)):
                self._append(self._intake.settle(settled, self._clock.now_ms()))
                self._say("spool: damage was found, its events are in the ledger as lost(spool_corrupt)")
            if others := {damage.contract for damage in damages if not self._intake.may_settle(damage)}:
                self._say(
                    f"spool: damage was found in {', '.join(sorted(others))}, of which the bundle knows no contract: "
                    "the ledger will say so after a start with a bundle that has it"
                )

    def _may_pull(self) -> bool:
        """Say whether something was asked for, and nothing of the present needs the room."""
        if self._pulls is None or not self._pulls.is_busy or self._group is not None or self._step is not Step.NONE:
            return False
        return self._spool.owed_bytes < PULL_SHARE * self._spool.quota_bytes

    def _pull(self) -> None:
        """Do a slice of what was asked for."""
        if self._may_pull() and self._pulls is not None:
            group = self._pulls.advance(self._clock.now_ms())
            if group is not None:
                self._append(group)

    def _begin_consent(self, desk: ConsentDesk) -> None:
        def withdraw(key: int) -> None:
            self._intake.forget(desk.contracts)
            self._courier.withdraw(key)

        desk.withdraw, desk.make_room = withdraw, self._spool.reserve.give_up
        desk.concern(self._intake.consenting)
        lake = Lake(lambda: self._courier.committed, self._courier.has_word)
        self._consent_accounts = ConsentAccounts(desk, self._spool, self._intake, lake, self._clock)

    def _account_for_consent(self, now_s: float) -> None:
        """Tell the lake what people's decisions meant for their events, a small part at a time."""
        accounts = self._consent_accounts
        if accounts is None or self._group is not None or not accounts.is_due(now_s):
            return
        try:
            group = accounts.advance(now_s)
        except OSError as error:
            self._say(f"consent: a decision is not accounted for yet: {error.strerror}: trying again")
            return
        if group is not None:
            self._append(group)

    def reconnect(self) -> None:
        """Connect anew at once, with other credentials."""
        self._courier.reconnect()

    def _renew(self) -> None:
        if self.certificates is not None:
            due_ms = self.certificates.next_due_ms()
            if due_ms is not None and self._clock.now_ms() >= due_ms:
                self.certificates.tick()

    def _change_bundle(self, now_s: float) -> None:
        """Between two chunks: another bundle may come into force here."""
        if self.bundles is not None and self._group is None:
            ack = self._courier.ack
            known_ms = max((mark.committed_at_ms for mark in ack.watermarks), default=0) if ack is not None else 0
            self.bundles.turn(now_s, known_ms)
            if self._reception.consent is not None:
                self._reception.consent.concern(self._intake.consenting)

    def _wait_s(self, now_s: float) -> float:
        """Return how long nothing happens by itself."""
        if self._may_pull():
            return 0.0
        times = [now_s + WAIT_S_MAX, self._next_status_s, *self._courier.due_s()]
        if self._consent_accounts is not None and self._group is None and self._consent_accounts.is_due(now_s):
            times.append(now_s)
        if self._group is not None:
            times.append(self._retry_s)
            return max(0.0, min(times) - now_s)
        if (settle_s := self._courier.damages_due_s()) is not None:
            times.append(settle_s)
        if (due_s := self._next_take_s()) is not None and not self._is_full():
            times.append(due_s)
        if self.bundles is not None and self._group is None:
            times.append(self.bundles.due_s(now_s))
        return max(0.0, min(times) - now_s)

    def _on_event(self, event: LinkEvent) -> None:
        match event:
            case Offered():
                self._reception.offer(event)
            case Asked():
                self._reception.ask(event)
            case RenewalNews() if self.certificates is not None:
                self.certificates.on(event.event)
            case CertificateArrived() if self.certificates is not None:
                self.certificates.answered(event.document)
            case BundleAnnounced() if self.bundles is not None:
                self.bundles.heard(event.document)
            case PullArrived() if self._pulls is not None:
                self._pulls.hear(event.id, event.document, self._clock.now_ms())
            case SourceFailed():
                self._say(f"source {event.source} has stopped: {event.reason}")
            case _:
                was_up = self._courier.link_up
                self._courier.on_event(event)
                if isinstance(event, AckArrived):
                    self.gauges.acknowledged(self._courier.ack)
                elif isinstance(event, LinkDown):
                    self.gauges.link_lost()
                if self.certificates is not None:
                    if self._courier.link_up and not was_up:
                        self.certificates.link_up()
                    elif isinstance(event, LinkDown) and event.refused:
                        self.certificates.link_refused()

    def _say(self, message: str) -> None:
        if message != self._last_error:
            _log.warning("%s", message)
        self._last_error = message
