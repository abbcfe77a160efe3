"""The loop of a running agent: events from the broker, lines from the source, batches to the broker, timers."""

import logging
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from contracts import microbatch, ranges, watermark
from contracts.errors import BatchError, WatermarkError
from contracts.microbatch import Flag
from contracts.ports import Clock
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument
from edge_agent.core.accounts import LEDGER, stream_sums
from edge_agent.core.intake import Intake
from edge_agent.core.link import AckArrived, Answered, LinkDown, LinkEvent, LinkUp, Subscribed
from edge_agent.core.pacing import connect_pause_s, due_events
from edge_agent.core.recovery import PendingBatch
from edge_agent.core.sending import Event, Sending, SendWindow
from edge_agent.core.settlement import settlement_of
from edge_agent.core.spool import QUOTA_BYTES, Group, Spool
from edge_agent.errors import SpoolWriteError
from edge_agent.ports import Inbox, Source, Uplink
from edge_agent.report import Report, wire_report

PENDING_BATCHES_MAX: Final = 16_384  # batches; their places take about 5 MB of memory; beyond, the source waits
ACK_GRACE_S: Final = 1.0  # s; after subscribing, how long a retained acknowledgement may take before resends begin
LOST_SETTLE_S: Final = 30.0  # s; batches of an earlier process that were under way are committed by then, or never
ANSWER_S_MAX: Final = 60.0  # s; a broker that owes a PUBACK for so long is stuck, the link is made anew
STATUS_S: Final = 1.0  # s
WRITE_RETRY_S: Final = 1.0  # s; a full disk does not empty faster
WAIT_S_MAX: Final = 1.0  # s; the longest the loop sleeps

_ANSWERS: Final = {0x00: Event.ACCEPTED, 0x10: Event.UNHEARD, 0x97: Event.UNHEARD}
_REFUSED: Final = {0x87: "not authorised", 0x95: "packet too large", 0x99: "payload format"}
_log = logging.getLogger(__name__)


class Settings(Struct, frozen=True):
    """What the loop must know of the configuration."""

    device: str
    contract: str
    rate_events_per_s: float
    flush_interval_s: float
    until_drained: bool


class Agent:
    """One device. All of it happens in the thread that calls `run`; others only put events into its inbox."""

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        spool: Spool,
        source: Source,
        uplink: Uplink,
        inbox: Inbox,
        clock: Clock,
        random: Callable[[], float],
        memory_mb: Callable[[], float | None],
        write_status: Callable[[Report], None],
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._spool = spool
        self._source = source
        self._uplink = uplink
        self._inbox = inbox
        self._clock = clock
        self._random = random
        self._memory_mb = memory_mb
        self._write_status = write_status
        self._window = SendWindow()
        self._messages: dict[int, int] = {}  # paho's message id -> batch id
        self._ack: AckDocument | None = None
        self._committed: dict[str, RangeSet] = {}
        self._last_error: str | None = None
        self._group: Group | None = None  # sealed, and not yet durable
        self._stopping = False
        self._source_done = False
        self._link_up = False
        self._failures = 0
        self._packet_bytes_max: int | None = None
        now = clock.monotonic_s()
        self._started_s = self._next_flush_s = self._next_status_s = now
        self._connect_s: float | None = now
        self._resume_s: float | None = None
        self._settle_s: float | None = None
        self._taken = 0
        self._withheld: list[PendingBatch] = []  # ledger batches that a settlement may correct
        for batch in spool.recovered.pending:
            if spool.is_damaged and batch.contract == LEDGER:
                self._withheld.append(batch)
            else:
                self._window.add(batch)
        if spool.recovered.cursor_rotted:
            self._fail("spool: cursor.json had rotted: sums of deleted segments are gone, the ledger cannot add up")

    def stop(self) -> None:
        """Ask the loop to end; what is not sent stays in the spool, owed ledger entries in its metadata."""
        self._stopping = True

    def run(self) -> Report:
        """Run until drained (if so configured) or stopped; return the last report."""
        while not self._stopping and not self._is_done():
            now = self._clock.monotonic_s()
            self._connect_if_due(now)
            self._take_in(now)
            self._send(now)
            self._timers(now)
            for event in self._inbox.take(self._wait_s(self._clock.monotonic_s())):
                self._on_event(event)
        if self._group is not None:
            self._append(self._group)
        self._uplink.close(self._spool.epoch)
        self._source.close()
        if self._is_drained():
            self._spool.finish()
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
            stream: stream_sums(stream, observed, counts, self._committed_upto(stream))
            for stream, observed in self._spool.observed.items()
        }
        return Report(
            device=self._settings.device,
            epoch=self._spool.epoch,
            streams=streams,
            unexplained=sum(abs(sums.unexplained) for sums in streams.values()),
            wire=wire_report(self._spool.wire),
            batches_published=self._window.published,
            resends=self._window.resent,
            pss_mb=self._memory_mb(),
            link="up" if self._link_up else "down",
            source_at_end=self._source_done,
            drained=self._is_drained(),
            pending_batches=len(self._window) + len(self._withheld),
            held_batches=self._window.held,
            spool_bytes=self._spool.size_bytes,
            last_error=self._last_error,
            ack=self._ack,
        )

    def _committed_upto(self, stream: str) -> int:
        """Return up to where the lake holds a stream, by its watermarks of now and of earlier processes."""
        return ranges.upto(ranges.union((*self._spool.freed(stream), *self._committed.get(stream, ()))))

    def _is_drained(self) -> bool:
        return self._source_done and self._group is None and not len(self._window) and not self._spool.is_damaged

    def _is_done(self) -> bool:
        """Say whether there is nothing left to do, or nothing left that could be done before an operator has acted."""
        if not self._settings.until_drained or not self._source_done or self._group is not None:
            return False
        return self._is_drained() or (len(self._window) > 0 and self._window.held == len(self._window))

    def _connect_if_due(self, now_s: float) -> None:
        if self._connect_s is not None and now_s >= self._connect_s:
            self._connect_s = None
            self._uplink.connect(self._spool.epoch)

    def _take_in(self, now_s: float) -> None:
        """Read what is due, make one group of it and put it into the spool; a full spool makes the source wait."""
        if self._group is not None:
            if now_s >= self._next_flush_s:
                self._append(self._group)
            return
        if self._source_done or now_s < self._next_flush_s or self._is_full():
            return
        rate = self._settings.rate_events_per_s
        self._next_flush_s = now_s if rate == 0 else now_s + self._settings.flush_interval_s
        lines = self._source.read(due_events(rate, now_s - self._started_s, self._taken))
        self._taken += len(lines)
        if not lines and not self._source.at_end:
            self._next_flush_s = now_s + self._settings.flush_interval_s
        final = self._source.at_end and not lines
        group = self._intake.take(lines, self._clock.now_ms(), final=final)
        self._source_done = final
        if group is not None:
            self._append(group)

    def _is_full(self) -> bool:
        return self._spool.size_bytes >= QUOTA_BYTES or len(self._window) >= PENDING_BATCHES_MAX

    def _append(self, group: Group) -> None:
        try:
            pending = self._spool.append(group)
        except SpoolWriteError as error:
            self._group = group
            self._next_flush_s = self._clock.monotonic_s() + WRITE_RETRY_S
            self._fail(str(error))
            return
        self._group = None
        if group.settles:
            self._fail("spool: a damaged record was found, its events are in the ledger as lost(spool_corrupt)")
            pending = (*self._withheld, *pending)
            self._withheld, self._settle_s = [], None
        for batch in pending:
            self._window.add(batch)
        if group.settles:
            self._spool.commit(self._window.commit(self._committed))  # What was withheld may be in the lake.

    def _send(self, now_s: float) -> None:
        while self._link_up and (sending := self._window.take(now_s)) is not None:
            data = self._bytes_of(sending)
            if data is None or (self._packet_bytes_max is not None and len(data) + 128 > self._packet_bytes_max):
                self._window.answered(sending.batch.id, Event.REFUSED, now_s)
                self._fail(
                    f"batch {sending.batch.contract} {sending.batch.first_seq}: too large for the broker, or rotten"
                )
                continue
            message = self._uplink.publish(data)
            if message is None:
                return  # LinkDown follows, and makes it ready again
            self._messages[message] = sending.batch.id

    def _bytes_of(self, sending: Sending) -> bytes | None:
        """Return a batch from the spool, marked as backlog when it goes again; None when it has rotted there."""
        data = self._spool.read(sending.batch)
        try:
            header, payload = microbatch.parse(data)
        except BatchError as error:
            _log.error("batch %s %d in the spool: %s", sending.batch.contract, sending.batch.first_seq, error)
            return None
        if sending.attempts == 1:
            return data
        return microbatch.seal(replace(header, flags=header.flags | Flag.BACKLOG), bytes(payload))

    def _timers(self, now_s: float) -> None:
        self._window.tick(now_s)
        if self._resume_s is not None and now_s >= self._resume_s:
            self._resume()
        if self._settle_s is not None and now_s >= self._settle_s and self._group is None:
            self._settle()
        oldest = self._window.oldest_outstanding_s()
        if self._link_up and oldest is not None and now_s - oldest > ANSWER_S_MAX:
            self._uplink.drop()
            self._link_down(f"no answer to a publish for {ANSWER_S_MAX:.0f} s: connecting again")
        if now_s >= self._next_status_s:
            self._next_status_s = now_s + STATUS_S
            self._write_status(self.report())

    def _wait_s(self, now_s: float) -> float:
        """Return how long nothing happens by itself."""
        times = [now_s + WAIT_S_MAX, self._next_status_s]
        settle_s = self._settle_s if self._group is None else None
        times += [t for t in (self._connect_s, self._resume_s, settle_s) if t is not None]
        if (due := self._window.next_due_s()) is not None:
            times.append(due)
        if self._group is not None or not (self._source_done or self._is_full()):
            times.append(self._next_flush_s)
        return max(0.0, min(times) - now_s)

    def _on_event(self, event: LinkEvent) -> None:
        match event:
            case LinkUp(link=link) if link == self._uplink.link:
                self._link_up, self._failures = True, 0
                self._window.window, self._packet_bytes_max = event.window, event.packet_bytes_max
                _log.info("connected, %d batches to send", len(self._window))
            case LinkDown(link=link) if link == self._uplink.link and self._connect_s is None:
                self._link_down(event.reason)
            case Subscribed(link=link) if link == self._uplink.link:
                if event.code >= 0x80:
                    self._fail(f"subscription to the acknowledgements was refused: reason {event.code:#04x}")
                now = self._clock.monotonic_s()
                self._resume_s = now + ACK_GRACE_S
                self._settle_s = now + LOST_SETTLE_S if self._spool.is_damaged else None
            case Answered(link=link) if link == self._uplink.link:
                self._answered(event)
            case AckArrived(link=link) if link == self._uplink.link:
                self._acknowledged(event.document)
            case _:
                return

    def _link_down(self, reason: str) -> None:
        self._link_up = False
        self._resume_s = self._settle_s = None
        self._messages.clear()
        self._window.link_lost()
        self._connect_s = self._clock.monotonic_s() + connect_pause_s(self._failures, self._random)
        self._failures += 1
        self._fail(reason)

    def _answered(self, event: Answered) -> None:
        batch_id = self._messages.pop(event.message, None)
        if batch_id is None:
            return  # the state message
        answer = _ANSWERS.get(event.code, Event.REFUSED if event.code in _REFUSED else Event.UNHEARD)
        self._window.answered(batch_id, answer, self._clock.monotonic_s())
        if answer is Event.REFUSED:
            self._fail(
                f"broker refused a batch: {_REFUSED[event.code]} ({event.code:#04x}): it is held until a restart"
            )
        elif answer is Event.UNHEARD:
            self._fail(f"broker answered {event.code:#04x}: nobody takes batches at present, trying again")

    def _acknowledged(self, document: bytes) -> None:
        """Free what the lake holds. Only watermarks of this spool's epoch speak of it."""
        try:
            ack = watermark.decode_ack(document) if document else AckDocument(self._settings.device)
        except WatermarkError as error:
            self._fail(str(error))
            return
        self._ack = ack
        for mark in ack.watermarks:
            if mark.epoch == self._spool.epoch:
                self._committed[mark.contract] = ranges.union(
                    (*self._committed.get(mark.contract, ()), *mark.committed)
                )
            elif mark.epoch > self._spool.epoch:
                self._fail(
                    f"acknowledgement of {mark.contract} names epoch {mark.epoch}, the spool has {self._spool.epoch}: "
                    "the clock went back, or another device has this name"
                )
        self._spool.commit(self._window.commit(self._committed))
        if self._resume_s is not None:
            self._resume()

    def _resume(self) -> None:
        self._resume_s = None
        self._window.resumed()

    def _settle(self) -> None:
        """Account for records that rotted, now that the lake has said which of them it holds."""
        self._settle_s = None
        self._append(self._intake.settle(settlement_of(self._spool.recovered, self._committed), self._clock.now_ms()))

    def _fail(self, message: str) -> None:
        if message != self._last_error:
            _log.warning("%s", message)
        self._last_error = message
