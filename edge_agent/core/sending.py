"""Which batch to publish next, and what an answer means for it. A PUBACK frees nothing: only a watermark does."""

import heapq
from collections import deque
from collections.abc import Mapping
from enum import Enum
from typing import Final

from msgspec.structs import replace

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.recovery import PendingBatch
from edge_agent.errors import IllegalStepError

SEND_WINDOW: Final = 20  # publishes; a broker's usual receive maximum, and 20 x 128 KiB stay under 3 MB
RESEND_S: Final = 30.0  # s; some twenty times the way to the lake and back, so a resend is nearly always a repair
RESEND_S_MAX: Final = 300.0  # s; a lake that stands still for an hour gets each batch a dozen times, not a hundred
RETRY_S: Final = 2.0  # s; a gateway restarts in about this time
RETRY_S_MAX: Final = 60.0  # s
PAUSE_S: Final = (
    1.0  # s; after an answer that says "nobody listens" or "too much": at most a window of batches a second
)

State = Enum("State", "READY IN_FLIGHT SENT UNCERTAIN DEFERRED HELD COMMITTED")
Event = Enum("Event", "PUBLISH ACCEPTED UNHEARD REFUSED LINK_LOST RESUMED DUE WATERMARK")

NEXT: Final[dict[tuple[State, Event], State]] = {
    (State.READY, Event.PUBLISH): State.IN_FLIGHT,
    (State.READY, Event.LINK_LOST): State.READY,
    (State.READY, Event.RESUMED): State.READY,
    (State.READY, Event.WATERMARK): State.COMMITTED,  # landed before the link broke
    (State.IN_FLIGHT, Event.ACCEPTED): State.SENT,
    (State.IN_FLIGHT, Event.UNHEARD): State.DEFERRED,
    (State.IN_FLIGHT, Event.REFUSED): State.HELD,
    (State.IN_FLIGHT, Event.LINK_LOST): State.READY,
    (State.IN_FLIGHT, Event.RESUMED): State.IN_FLIGHT,
    (State.IN_FLIGHT, Event.WATERMARK): State.COMMITTED,
    (State.SENT, Event.LINK_LOST): State.UNCERTAIN,  # its watermark may be waiting at the broker
    (State.SENT, Event.RESUMED): State.SENT,
    (State.SENT, Event.DUE): State.READY,
    (State.SENT, Event.WATERMARK): State.COMMITTED,
    (State.UNCERTAIN, Event.LINK_LOST): State.UNCERTAIN,
    (State.UNCERTAIN, Event.RESUMED): State.READY,  # no watermark was waiting for it
    (State.UNCERTAIN, Event.DUE): State.READY,
    (State.UNCERTAIN, Event.WATERMARK): State.COMMITTED,
    (State.DEFERRED, Event.LINK_LOST): State.DEFERRED,
    (State.DEFERRED, Event.RESUMED): State.DEFERRED,
    (State.DEFERRED, Event.DUE): State.READY,
    (State.DEFERRED, Event.WATERMARK): State.COMMITTED,
    (State.HELD, Event.LINK_LOST): State.HELD,
    (State.HELD, Event.RESUMED): State.HELD,
    (State.HELD, Event.WATERMARK): State.COMMITTED,
}

_TIMED: Final = frozenset(state for state, event in NEXT if event is Event.DUE)


def step(state: State, event: Event) -> State:
    """Follow the table; a pair without a row is a defect of the caller. Raises IllegalStepError."""
    if (after := NEXT.get((state, event))) is None:
        raise IllegalStepError(f"batch is {state.name}: {event.name} has no row")
    return after


class Sending:
    """One batch on its way. `attempts` counts publishes."""

    __slots__ = ("attempts", "batch", "state")

    def __init__(self, batch: PendingBatch) -> None:
        self.batch = batch
        self.state = State.READY
        self.attempts = 0


class SendWindow:
    """All batches that the lake is not known to hold, in the order of sealing. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._sendings: dict[int, Sending] = {}
        self._ready: list[int] = []  # heap of ids
        self._due: list[tuple[float, int, int]] = []  # heap of (when, id, attempts then)
        self._outstanding: dict[int, float] = {}  # id -> when published; until answered, committed or not
        self._by_contract: dict[str, deque[PendingBatch]] = {}
        self._paused_until_s = 0.0
        self.window = SEND_WINDOW
        self.published = 0
        self.resent = 0

    def __len__(self) -> int:
        return len(self._sendings)

    @property
    def held(self) -> int:
        """Batches that are not sent again before an operator has acted."""
        return sum(sending.state is State.HELD for sending in self._sendings.values())

    def add(self, batch: PendingBatch) -> None:
        """Take in a durable batch. One for the range of an earlier one corrects it: its bytes go in both places."""
        waiting = self._by_contract.setdefault(batch.contract, deque())
        if waiting and batch.first_seq <= waiting[-1].first_seq:  # only a settlement goes back
            for earlier in waiting:
                if (earlier.first_seq, earlier.span) == (batch.first_seq, batch.span):
                    self._sendings[earlier.id].batch = replace(batch, id=earlier.id)
        self._sendings[batch.id] = Sending(batch)
        heapq.heappush(self._ready, batch.id)
        waiting.append(batch)

    def take(self, now_s: float) -> Sending | None:
        """Return the next batch to publish, which counts as published now; None while the window is full or paused."""
        if now_s < self._paused_until_s or len(self._outstanding) >= self.window:
            return None
        while self._ready:
            sending = self._sendings.get(heapq.heappop(self._ready))
            if sending is None or sending.state is not State.READY:
                continue
            sending.state = step(sending.state, Event.PUBLISH)
            sending.attempts += 1
            self._outstanding[sending.batch.id] = now_s
            self.published += sending.attempts == 1
            self.resent += sending.attempts > 1
            return sending
        return None

    def answered(self, batch_id: int, event: Event, now_s: float) -> None:
        """Follow the broker's answer: ACCEPTED, UNHEARD (nobody subscribes, or quota exceeded) or REFUSED."""
        if self._outstanding.pop(batch_id, None) is None:
            return  # an answer over a link that is gone
        if event is Event.UNHEARD:
            self._paused_until_s = now_s + PAUSE_S
        sending = self._sendings.get(batch_id)
        if sending is None:
            return  # its watermark was faster
        sending.state = step(sending.state, event)
        if sending.state is State.SENT:
            self._due_in(sending, now_s, RESEND_S, RESEND_S_MAX)
        elif sending.state is State.DEFERRED:
            self._due_in(sending, now_s, RETRY_S, RETRY_S_MAX)

    def link_lost(self) -> None:
        """Forget what was in flight; it goes again."""
        self._outstanding.clear()
        self._all(Event.LINK_LOST)

    def resumed(self) -> None:
        """Send again what the broker accepted over an earlier link: the watermarks since then do not cover it."""
        self._all(Event.RESUMED)

    def tick(self, now_s: float) -> None:
        """Make batches ready whose time has come."""
        while self._due and self._due[0][0] <= now_s:
            _, batch_id, attempts = heapq.heappop(self._due)
            sending = self._sendings.get(batch_id)
            if sending is not None and sending.attempts == attempts and sending.state in _TIMED:
                self._move(sending, Event.DUE)

    def next_due_s(self) -> float | None:
        """Return when `tick` or `take` has something to do without an event from outside."""
        due = self._due[0][0] if self._due else None
        if self._ready and self._paused_until_s:
            return self._paused_until_s if due is None else min(due, self._paused_until_s)
        return due

    def oldest_outstanding_s(self) -> float | None:
        """Return when the oldest publish without an answer was made."""
        return next(iter(self._outstanding.values()), None)

    def commit(self, committed: Mapping[str, RangeSet]) -> list[PendingBatch]:
        """Drop every batch that committed ranges cover, and return these."""
        done: list[PendingBatch] = []
        for contract, held in committed.items():
            waiting = self._by_contract.get(contract)
            if not waiting or not held:
                continue
            while waiting and ranges.covers(held, waiting[0].first_seq, waiting[0].end_seq):
                done.append(waiting.popleft())
            if waiting and held[-1][1] > waiting[0].first_seq:
                late = {b.id for b in waiting if ranges.covers(held, b.first_seq, b.end_seq)}
                done.extend(b for b in waiting if b.id in late)
                self._by_contract[contract] = deque(b for b in waiting if b.id not in late)
        for batch in done:
            sending = self._sendings.pop(batch.id)
            sending.state = step(sending.state, Event.WATERMARK)
        return done

    def _all(self, event: Event) -> None:
        for sending in self._sendings.values():
            self._move(sending, event)

    def _move(self, sending: Sending, event: Event) -> None:
        before = sending.state
        sending.state = step(before, event)
        if sending.state is State.READY and before is not State.READY:
            heapq.heappush(self._ready, sending.batch.id)

    def _due_in(self, sending: Sending, now_s: float, first_s: float, most_s: float) -> None:
        wait_s = min(most_s, first_s * 2.0 ** min(sending.attempts - 1, 16))
        heapq.heappush(self._due, (now_s + wait_s, sending.batch.id, sending.attempts))
