"""Which batch to publish next, and what an answer means for it. A PUBACK frees nothing: only a watermark does.

Two lanes: what is sealed now is *live*, what was found in the spool, or was sealed faster than it could be sent, is
*backlog*. A live batch goes before every backlog batch and finds a place kept free for it, so that days of backlog do
not delay it. Memory holds the places of a few thousand batches; the others wait in their segments on disk.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.spool.segment import PendingBatch
from edge_agent.errors import IllegalStepError

SEND_WINDOW: Final = 20  # publishes; a broker's usual receive maximum, and 20 x 128 KiB stay under 3 MB
LIVE_PLACES: Final = 6  # of them; a live batch never waits for a backlog batch to be answered
BACKLOG_BYTES: Final = 524_288  # bytes of backlog under way at once; each is in memory about three times until answered
RESEND_S: Final = 30.0  # s; some twenty times the way to the lake and back, so a resend is nearly always a repair
RESEND_S_MAX: Final = 300.0  # s; a lake that stands still for an hour gets each batch a dozen times, not a hundred
RETRY_S: Final = 2.0  # s; a gateway restarts in about this time
RETRY_S_MAX: Final = 60.0  # s
DUE_EXTRA: Final = 64  # times of batches that are gone, kept beside as many as there are batches, until they pass
PAUSE_S: Final = (
    1.0  # s; after an answer that says "nobody listens" or "too much": at most a window of batches a second
)

Lane = Enum("Lane", "LIVE BACKLOG")
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

    __slots__ = ("attempts", "batch", "lane", "state")

    def __init__(self, batch: PendingBatch, lane: Lane) -> None:
        self.batch = batch
        self.lane = lane
        self.state = State.READY
        self.attempts = 0


class SendWindow:
    """The batches that wait in memory, by lane in the order of sealing. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._sendings: dict[int, Sending] = {}
        self._ready: dict[Lane, list[int]] = {lane: [] for lane in Lane}  # heaps of ids
        self._due: list[tuple[float, int, int]] = []  # heap of (when, id, attempts then)
        self._outstanding: dict[int, float] = {}  # id -> when published; until answered, committed or not
        self._waiting: dict[tuple[str, Lane], deque[PendingBatch]] = {}
        self._segments: dict[int, int] = {}  # batches by segment
        self._backlog_outstanding: dict[int, int] = {}  # id -> bytes
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

    @property
    def backlog(self) -> int:
        """Backlog batches in memory."""
        return sum(len(waiting) for (_, lane), waiting in self._waiting.items() if lane is Lane.BACKLOG)

    def segments(self) -> frozenset[int]:
        """Segments of which batches are in memory."""
        return frozenset(self._segments)

    def add(self, batches: Iterable[PendingBatch], lane: Lane = Lane.LIVE) -> None:
        """Take in durable batches; one that is here already changes nothing."""
        for batch in batches:
            if batch.id in self._sendings:
                continue
            self._sendings[batch.id] = Sending(batch, lane)
            heapq.heappush(self._ready[lane], batch.id)
            self._waiting.setdefault((batch.contract, lane), deque()).append(batch)
            self._segments[batch.segment] = self._segments.get(batch.segment, 0) + 1

    def shed(self, segment: int) -> bool:
        """Forget a segment's batches, which wait in the spool; say no when one of them is under way."""
        ids = {i for i, sending in self._sendings.items() if sending.batch.segment == segment}
        if ids & self._outstanding.keys():
            return False
        self._forget(ids)
        return True

    def drop(self, batch_id: int) -> None:
        """Forget one batch, which counts as under way no longer: another one accounts for its range."""
        self._outstanding.pop(batch_id, None)
        self._backlog_outstanding.pop(batch_id, None)
        self._forget({batch_id} & self._sendings.keys())

    def withdraw(self, key: int) -> None:
        """Forget all batches with the rows of a person, whether they are under way or not."""
        self._forget({i for i, sending in self._sendings.items() if sending.batch.key == key})

    def take(self, now_s: float) -> Sending | None:
        """Return the next batch to publish, which counts as published now; None while the window is full or paused."""
        if now_s < self._paused_until_s or len(self._outstanding) >= self.window:
            return None
        sending = self._next(Lane.LIVE)
        if sending is None and self._has_room_for_backlog():
            sending = self._next(Lane.BACKLOG)
            if sending is not None:
                self._backlog_outstanding[sending.batch.id] = sending.batch.length
        if sending is None:
            return None
        sending.state = step(sending.state, Event.PUBLISH)
        sending.attempts += 1
        self._outstanding[sending.batch.id] = now_s
        self.published += sending.attempts == 1
        self.resent += sending.attempts > 1
        return sending

    def answered(self, batch_id: int, event: Event, now_s: float) -> None:
        """Follow the broker's answer: ACCEPTED, UNHEARD (nobody subscribes, or quota exceeded) or REFUSED."""
        if self._outstanding.pop(batch_id, None) is None:
            return  # an answer over a link that is gone
        self._backlog_outstanding.pop(batch_id, None)
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
        self._backlog_outstanding.clear()
        self._all(Event.LINK_LOST)

    def resumed(self) -> None:
        """Send again what the broker accepted over an earlier link: the watermarks since then do not cover it."""
        self._all(Event.RESUMED)

    def tick(self, now_s: float) -> None:
        """Make batches ready whose time has come, and end a pause that is over."""
        if now_s >= self._paused_until_s:
            self._paused_until_s = 0.0  # Else it would go on to be a reason to wake up.
        while self._due and self._due[0][0] <= now_s:
            _, batch_id, attempts = heapq.heappop(self._due)
            sending = self._sendings.get(batch_id)
            if sending is not None and sending.attempts == attempts and sending.state in _TIMED:
                self._move(sending, Event.DUE)

    def next_due_s(self) -> float | None:
        """Return when `tick` or `take` has something to do without an event from outside."""
        due = self._due[0][0] if self._due else None
        if any(self._ready.values()) and self._paused_until_s:
            return self._paused_until_s if due is None else min(due, self._paused_until_s)
        return due

    def oldest_outstanding_s(self) -> float | None:
        """Return when the oldest publish without an answer was made."""
        return next(iter(self._outstanding.values()), None)

    def commit(self, committed: Mapping[str, RangeSet]) -> list[PendingBatch]:
        """Drop every batch that committed ranges cover, and return these."""
        done: list[PendingBatch] = []
        for (contract, _), waiting in self._waiting.items():
            held = committed.get(contract, ())
            if not waiting or not held:
                continue
            while waiting and ranges.covers(held, waiting[0].first_seq, waiting[0].end_seq):
                done.append(waiting.popleft())
            # What was loaded again, or takes another's place, is not in the order of its numbers.
            near = [batch for batch in waiting if batch.end_seq <= held[-1][1]]
            done += [batch for batch in near if ranges.covers(held, batch.first_seq, batch.end_seq)]
        for batch in done:
            sending = self._sendings[batch.id]
            sending.state = step(sending.state, Event.WATERMARK)
        self._forget({batch.id for batch in done})
        return done

    def _has_room_for_backlog(self) -> bool:
        places = max(1, self.window - LIVE_PLACES)
        return len(self._backlog_outstanding) < places and sum(self._backlog_outstanding.values()) < BACKLOG_BYTES

    def _next(self, lane: Lane) -> Sending | None:
        ready = self._ready[lane]
        while ready:
            sending = self._sendings.get(heapq.heappop(ready))
            if sending is not None and sending.state is State.READY:
                return sending
        return None

    def _forget(self, ids: set[int]) -> None:
        touched: set[tuple[str, Lane]] = set()
        for batch_id in ids:
            sending = self._sendings.pop(batch_id)
            segment = sending.batch.segment
            touched.add((sending.batch.contract, sending.lane))
            self._segments[segment] -= 1
            if not self._segments[segment]:
                del self._segments[segment]
        for key in touched:
            waiting = self._waiting[key]
            while waiting and waiting[0].id in ids:
                waiting.popleft()
            if any(batch.id in ids for batch in waiting):
                self._waiting[key] = deque(batch for batch in waiting if batch.id not in ids)

    def _all(self, event: Event) -> None:
        for sending in self._sendings.values():
            self._move(sending, event)

    def _move(self, sending: Sending, event: Event) -> None:
        before = sending.state
        sending.state = step(before, event)
        if sending.state is State.READY and before is not State.READY:
            heapq.heappush(self._ready[sending.lane], sending.batch.id)

    def _due_in(self, sending: Sending, now_s: float, first_s: float, most_s: float) -> None:
        wait_s = min(most_s, first_s * 2.0 ** min(sending.attempts - 1, 16))
        heapq.heappush(self._due, (now_s + wait_s, sending.batch.id, sending.attempts))
        if len(self._due) > 2 * len(self._sendings) + DUE_EXTRA:
            # A drain commits thousands of batches long before their times.
            self._due = [due for due in self._due if due[1] in self._sendings]
            heapq.heapify(self._due)
