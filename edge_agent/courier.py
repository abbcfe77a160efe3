"""The sending half of a running agent: batches from the spool to the broker, watermarks back, the link between."""

import logging
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from contracts import microbatch, ranges, watermark
from contracts.errors import BatchError, WatermarkError
from contracts.microbatch import Flag
from contracts.ports import Clock
from contracts.ranges import RangeSet
from contracts.watermark import AckDocument
from edge_agent.backlog import Backlog
from edge_agent.core.sources.pacing import connect_pause_s
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.segment import PendingBatch
from edge_agent.core.spool.settling import ACK_GRACE_S, LOST_SETTLE_S, Settling
from edge_agent.core.spool.spool import Spool
from edge_agent.core.uplink.link import AckArrived, Answered, LinkDown, LinkEvent, LinkUp, Subscribed
from edge_agent.core.uplink.sending import Event, Lane, Sending, SendWindow
from edge_agent.errors import SpoolWriteError
from edge_agent.ports import Uplink

CONNECTING_S_MAX: Final = 60.0  # s; TCP, TLS and keep-alive end by themselves before; nothing may hang for ever
ANSWER_S_MAX: Final = 60.0  # s; a broker that owes a PUBACK for so long is stuck, the link is made anew
EXPIRE_S: Final = 60.0  # s; how often what has grown too old is looked for when no acknowledgement comes
READ_TRIES_MAX: Final = 8  # over about three minutes; a disk that fails a while costs nothing, a dead sector its batch

_ANSWERS: Final = {0x00: Event.ACCEPTED, 0x10: Event.UNHEARD, 0x97: Event.UNHEARD}
_REFUSED: Final = {0x87: "not authorised", 0x95: "packet too large", 0x99: "payload format"}
_log = logging.getLogger(__name__)


class Courier:
    """Sends what the spool holds until the lake has it. Runs in the agent's thread."""

    def __init__(
        self,
        device: str,
        spool: Spool,
        uplink: Uplink,
        clock: Clock,
        random: Callable[[], float],
        say: Callable[[str], None],
    ) -> None:
        self._device = device
        self._spool = spool
        self._uplink = uplink
        self._clock = clock
        self._random = random
        self._say = say
        self._messages: dict[int, int] = {}  # paho's message id -> batch id
        self._committed: dict[str, RangeSet] = dict(spool.recovered.held)
        self._damages = Settling()
        self._unread_tries: dict[int, int] = {}  # batch id -> how often the disk did not read it
        self._failures = 0
        self._packet_bytes_max: int | None = None
        self._connect_s: float | None = clock.monotonic_s()
        self._connecting_s: float | None = None  # since when a connection is being made
        self._resume_s: float | None = None
        self._subscribed_s: float | None = None  # to receipts, over the present link
        self._word_s: float | None = None  # a link made after this moment is wanted
        self._expire_s = clock.monotonic_s() + EXPIRE_S
        self.window = SendWindow()
        self._backlog = Backlog(spool, self.window, say)
        self.ack: AckDocument | None = None
        self.link_up = False
        self.connections = 0  # made by this process
        self._damaged(spool.gaps({}))

    @property
    def waiting_segments(self) -> int:
        """Segments whose batches wait on disk alone."""
        return len(self._backlog.segments)

    @property
    def is_idle(self) -> bool:
        """Say whether the lake holds everything that the spool ever accounted for."""
        return not len(self.window) and not self._backlog.segments and not len(self._damages)

    @property
    def is_stuck(self) -> bool:
        """Say whether nothing more can be sent before an operator has acted."""
        return (
            len(self.window) > 0
            and self.window.held == len(self.window)
            and not self._backlog.segments
            and not len(self._damages)
        )

    def committed_upto(self, stream: str) -> int:
        """Return up to where the lake holds a stream, by its watermarks of now and of earlier processes."""
        return ranges.upto(self._committed.get(stream, ()))

    def add(self, pending: tuple[PendingBatch, ...], lane: Lane = Lane.LIVE) -> None:
        """Take over batches that have just become durable; those that memory has no room for wait on disk."""
        self.window.add(pending, lane)
        self._backlog.shed()

    @property
    def committed(self) -> dict[str, RangeSet]:
        """What the lake is known to hold, by contract."""
        return self._committed

    def withdraw(self, key: int) -> None:
        """Send nothing more of a person, by the number of their key."""
        self.window.withdraw(key)

    def has_word(self, since_s: float, now_s: float) -> bool:
        """Say whether the lake has said what it holds of all that was under way at a moment, as with damage.

        If it has not, a connection will be made for its word when it is time.
        """
        word_s = since_s + LOST_SETTLE_S
        if self._subscribed_s is not None and self._subscribed_s >= word_s:
            return now_s >= self._subscribed_s + ACK_GRACE_S
        self._word_s = word_s
        return False

    def damages_due(self, now_s: float) -> tuple[Damage, ...]:
        """Return what has rotted, and is not in the lake by its newest word; empty before that has come."""
        return self._damages.due(now_s, self._subscribed_s)

    def damages_due_s(self) -> float | None:
        """Return when there is something to do about damage; None when there is nothing."""
        return self._damages.due_s(self._subscribed_s)

    def settled(self, damages: tuple[Damage, ...]) -> None:
        """Note that records account for these as lost."""
        self._damages.remove(damages)

    def advance(self, now_s: float) -> None:
        """Connect, load, send and wait for answers, as far as it is time."""
        if self._connect_s is not None and now_s >= self._connect_s:
            self._connect_s, self._connecting_s = None, now_s
            self._uplink.connect(self._spool.epoch)
        elif self._connecting_s is not None and now_s - self._connecting_s > CONNECTING_S_MAX:
            self._uplink.drop()
            self._link_down(f"no connection within {CONNECTING_S_MAX:.0f} s: trying again")
        self.window.tick(now_s)
        if self._resume_s is not None and now_s >= self._resume_s:
            self._resume()
        oldest = self.window.oldest_outstanding_s()
        if self.link_up and oldest is not None and now_s - oldest > ANSWER_S_MAX:
            self._uplink.drop()
            self._link_down(f"no answer to a publish for {ANSWER_S_MAX:.0f} s: connecting again")
        if self._damages.must_ask(now_s, self._subscribed_s):
            self._uplink.drop()
            self._link_down("spool: damage was found: connecting again for the newest acknowledgement")
        if self._word_s is not None and self._subscribed_s is not None and now_s >= self._word_s:
            if self._subscribed_s < self._word_s:
                self._uplink.drop()
                self._link_down("consent: a person has refused: connecting again for the newest acknowledgement")
            self._word_s = None
        if now_s >= self._expire_s:
            self._expire_s = now_s + EXPIRE_S
            self._free()
        if self.link_up and self._resume_s is None:
            self._damaged(self._backlog.load(now_s, self._committed))
        self._send(now_s)

    def due_s(self) -> list[float]:
        """Return the times at which `advance` has something to do by itself."""
        times = [t for t in (self._connect_s, self._resume_s, self.window.next_due_s()) if t is not None]
        times.append(self._expire_s)
        if self._connecting_s is not None:
            times.append(self._connecting_s + CONNECTING_S_MAX)
        if self._subscribed_s is not None and self._word_s is not None:
            times.append(self._word_s)
        if self.link_up and self._resume_s is None and (load_s := self._backlog.due_s()) is not None:
            times.append(load_s)
        return times

    def on_event(self, event: LinkEvent) -> None:
        """Follow what the link tells; events of an older link say nothing."""
        match event:
            case LinkUp(link=link) if link == self._uplink.link:
                self.link_up, self._failures, self._connecting_s = True, 0, None
                self.connections += 1
                # Nothing goes before the broker had the time to say what the lake holds already.
                self._resume_s = self._clock.monotonic_s() + ACK_GRACE_S
                self.window.window, self._packet_bytes_max = event.window, event.packet_bytes_max
                _log.info("connected, %d batches and %d segments to send", len(self.window), self.waiting_segments)
            case LinkDown(link=link) if link == self._uplink.link and self._connect_s is None:
                self._link_down(event.reason)
            case Subscribed(link=link) if link == self._uplink.link:
                if event.code >= 0x80:
                    self._say(f"subscription to the acknowledgements was refused: reason {event.code:#04x}")
                now = self._clock.monotonic_s()
                self._resume_s, self._subscribed_s = now + ACK_GRACE_S, now
            case Answered(link=link) if link == self._uplink.link:
                self._answered(event)
            case AckArrived(link=link) if link == self._uplink.link:
                self._acknowledged(event.document)
            case _:
                return

    def reconnect(self) -> None:
        """Connect anew at once, with other credentials."""
        if self._connect_s is None:
            self._uplink.drop()
            self._link_down("connecting with the next certificate")
        self._connect_s = self._clock.monotonic_s()

    def close(self) -> None:
        """Say goodbye; write down what the lake holds, and delete what need not stay."""
        self._uplink.close(self._spool.epoch)
        self._spool.finish()
        self._free()
        try:
            self._spool.note(self._committed)
        except SpoolWriteError as error:
            self._say(str(error))

    def _send(self, now_s: float) -> None:
        if not self.link_up or self._resume_s is not None:
            return
        while (sending := self.window.take(now_s)) is not None:
            batch = sending.batch
            if self._spool.is_withdrawn(batch):
                self.window.drop(batch.id)  # `consent_accounts` tells what became of its rows.
                continue
            try:
                data = self._bytes_of(sending)
                damages = (self._spool.damage(batch),) if data is None else ()
            except OSError as error:
                self._unread(batch, error, now_s)
                continue
            self._unread_tries.pop(batch.id, None)
            if data is None:
                self.window.drop(batch.id)
                self._damaged(damages)
                continue
            if self._packet_bytes_max is not None and len(data) + 128 > self._packet_bytes_max:
                self.window.answered(batch.id, Event.REFUSED, now_s)
                self._say(
                    f"batch {batch.contract} {batch.first_seq}: too large for the broker: {len(data)} bytes, it takes "
                    f"packets up to {self._packet_bytes_max}: raise its limit, the batch is held until a restart"
                )
                continue
            message = self._uplink.publish(data)
            if message is None:
                return  # LinkDown follows, and makes it ready again
            self._messages[message] = batch.id

    def _bytes_of(self, sending: Sending) -> bytes | None:
        """Return a batch from the spool, marked when it is backlog or goes again; None when it has rotted there.

        Raises OSError.
        """
        batch = sending.batch
        try:
            data = self._spool.read(batch)
            if data is None:
                _log.error("batch %s %d in the spool has rotted", batch.contract, batch.first_seq)
                return None
            header, payload = microbatch.parse(data)
        except BatchError as error:
            _log.error("batch %s %d in the spool: %s", batch.contract, batch.first_seq, error)
            return None
        if (header.first_seq, header.span) != (batch.first_seq, batch.span):
            _log.error(
                "batch %s %d in the spool: its place holds %d", batch.contract, batch.first_seq, header.first_seq
            )
            return None
        if sending.attempts == 1 and sending.lane is Lane.LIVE:
            return data
        return microbatch.seal(replace(header, flags=header.flags | Flag.BACKLOG), bytes(payload))

    def _unread(self, batch: PendingBatch, error: OSError, now_s: float) -> None:
        """Try a batch that the disk does not read again later; give it up when that has not helped."""
        tries = self._unread_tries.get(batch.id, 0) + 1
        self._say(f"spool: a batch of segment {batch.segment} cannot be read: {error.strerror}: check the disk")
        if tries < READ_TRIES_MAX:
            self._unread_tries[batch.id] = tries
            self.window.answered(batch.id, Event.UNHEARD, now_s)
            return
        self._unread_tries.pop(batch.id, None)
        self.window.drop(batch.id)
        try:
            damage = self._spool.damage(batch)
        except OSError:  # Its index neither: what entries a ledger batch held nobody can say.
            damage = Damage(batch.contract, batch.first_seq, batch.span, batch.rows)
        self._damaged((damage,))

    def _damaged(self, damages: tuple[Damage, ...]) -> None:
        self._damages.add(damages, self._clock.monotonic_s())
        if damages:
            self._say("spool: damage was found; its events will be in the ledger as lost(spool_corrupt)")

    def _link_down(self, reason: str) -> None:
        self.link_up = False
        self._connecting_s = self._resume_s = self._subscribed_s = None
        self._messages.clear()
        self.window.link_lost()
        self._connect_s = self._clock.monotonic_s() + connect_pause_s(self._failures, self._random)
        self._failures += 1
        self._say(reason)

    def _answered(self, event: Answered) -> None:
        batch_id = self._messages.pop(event.message, None)
        if batch_id is None:
            return  # the state message
        answer = _ANSWERS.get(event.code, Event.REFUSED if event.code in _REFUSED else Event.UNHEARD)
        self.window.answered(batch_id, answer, self._clock.monotonic_s())
        if answer is Event.REFUSED:
            self._say(f"broker refused a batch: {_REFUSED[event.code]} ({event.code:#04x}): it is held until a restart")
        elif answer is Event.UNHEARD:
            self._say(f"broker answered {event.code:#04x}: nobody takes batches at present, trying again")

    def _acknowledged(self, document: bytes) -> None:
        """Free what the lake holds. Only watermarks of this spool's epoch speak of it."""
        try:
            ack = watermark.decode_ack(document) if document else AckDocument(self._device)
        except WatermarkError as error:
            self._say(str(error))
            return
        if ack.origin != self._device:
            self._say(
                f"acknowledgement is of {ack.origin!r}, this is {self._device!r}: it frees nothing, check the broker"
            )
            return
        self.ack = ack
        observed = self._spool.observed
        for mark in ack.watermarks:
            if mark.epoch == self._spool.epoch:
                end = observed.get(mark.contract, 0)
                if mark.committed and mark.committed[-1][1] > end:
                    # Not about this spool, then: what it calls held may be anything.
                    self._say(
                        f"acknowledgement of {mark.contract} up to {mark.committed[-1][1]}, the spool goes to {end}: "
                        "another device has this name, or files of the spool are gone: move it away to begin anew"
                    )
                    continue
                self._committed[mark.contract] = ranges.union(
                    (*self._committed.get(mark.contract, ()), *mark.committed)
                )
            elif mark.epoch > self._spool.epoch:
                self._say(
                    f"acknowledgement of {mark.contract} names epoch {mark.epoch}, the spool has {self._spool.epoch}: "
                    "the clock went back, or another device has this name; a spool made anew takes a later epoch"
                )
        self.window.commit(self._committed)
        self._damages.keep(lambda damage: self._spool.is_open(damage, self._committed))
        self._free()
        if self._resume_s is not None:
            self._resume()

    def _free(self) -> None:
        try:
            self._spool.free(self._committed, self._clock.now_ms())
        except SpoolWriteError as error:
            self._say(str(error))
        self._backlog.keep_what_is_owed()

    def _resume(self) -> None:
        self._resume_s = None
        self.window.resumed()
