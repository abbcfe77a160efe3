"""Pulls beside the agent's loop: requests in, rows of the raw ring out, a slice at a time.

What of an answer is durable, and how far it has come, stands in the same record, so a crash at any step neither loses
a row nor sends one twice:

1. read   events are read and picked, up to a batch of them; nothing is durable. Crash after: the next start, or the
          request that the broker delivers again, begins where the last record says, and reads them again.
2. seal   rows and progress become one group. Crash before it is durable: as after 1.
3. answer the last rows, the row that says how many there were, and the pull's id among those not done again, are one
          group too. Crash after: the request comes again, and is known.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contracts import pulls, ranges
from contracts.contract import Contract
from contracts.errors import BatchError, BatchFormatError, PullError
from contracts.offshoots import pulled_of
from contracts.pulls import NAME_CHARS_MAX, VALID_MS_MAX, Outcome, PullRequest
from edge_agent.core.events import Column
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Parts
from edge_agent.core.pulls import walking
from edge_agent.core.pulls.answers import answer_columns
from edge_agent.core.pulls.progress import REMEMBERED_MAX, Progress, forget, remember
from edge_agent.core.pulls.selection import Picked, Selection
from edge_agent.core.spool.places import Place
from edge_agent.core.spool.segment import Segment
from edge_agent.core.spool.spool import Group, Spool

SLICE_ROWS: Final = 2_048  # events; some 10 ms of reading, so that what happens now waits no longer
SLICE_PLACES: Final = 64  # records; where they hold few events each
BATCH_ROWS: Final = 4_096  # rows; of telemetry half a micro-batch, of events with texts a full one
WAITING_MAX: Final = 8  # requests in memory, of up to 8 KB

_log = logging.getLogger(__name__)


class _Claimed(Struct, frozen=True):
    """What can be read of a request that cannot be followed."""

    contract: str = ""
    asked_by: str = ""


class _Walk:
    """A pull under way, as far as it is read; `progress` is ahead of what is durable by the rows in `picked`."""

    def __init__(self, request: PullRequest, parts: Parts, pulled: Contract, progress: Progress) -> None:
        self.request = request
        self.parts = parts  # of the plan in force
        self.pulled = pulled
        self.selection = Selection(parts.unsealers[request.contract], parts.plan.profile, request)
        self.progress = progress
        self.places: deque[Place] = deque()
        self.segment: Segment | None = None
        self.came_from = progress.segment - 1  # the segment of a pull that goes on is read again
        self.picked: list[Picked] = []
        self.rows = 0
        self.outcome: Outcome | None = None  # once there is nothing more to read


class Pulls:
    """Answers pulls, one after the other, in the order in which they were heard of.

    `stores` says whether the device has a raw ring at all.
    """

    def __init__(self, intake: Intake, spool: Spool, say: Callable[[str], None], *, stores: bool = True) -> None:
        self._intake = intake
        self._spool = spool
        self._say = say
        self._stores = stores
        self._waiting: deque[PullRequest] = deque()
        self._refused: deque[tuple[PullRequest, Outcome, str]] = deque()
        self._walk: _Walk | None = None
        self._withdrawn = ""

    @property
    def is_busy(self) -> bool:
        """Say whether `advance` has something to do."""
        return bool(self._refused or self._waiting or self._walk is not None or self._intake.pulls.active is not None)

    def hear(self, pull_id: str, document: bytes, now_ms: int) -> None:
        """Take a request, or with an empty document that it was taken back; one that is known changes nothing."""
        if not document:
            self._withdraw(pull_id, now_ms)
            return
        if pull_id in self._known():
            return
        self._withdrawn = "" if self._withdrawn == pull_id else self._withdrawn
        state = forget(self._intake.pulls, now_ms)
        if len(self._waiting) + len(self._refused) >= WAITING_MAX or len(state.answered) >= REMEMBERED_MAX:
            self._say(f"pull {pull_id}: too many others: it is heard of again with the next connection")
            return
        try:
            request = pulls.decode(document)
            if request.id != pull_id:
                raise PullError(f"pull {pull_id}: its document is of {request.id}")
        except PullError as error:
            self._refused.append((_unreadable(pull_id, document, now_ms), Outcome.REFUSED, str(error)))
            return
        self._waiting.append(request)

    def advance(self, now_ms: int) -> Group | None:
        """Do one slice; what is returned must become durable before the next."""
        if self._refused:
            return self._answer(*self._refused.popleft(), None, now_ms)
        if self._walk is not None and self._walk.outcome is None and self._walk.parts is not self._intake.parts:
            self.start_over()
        if self._walk is None:
            return self._begin(now_ms)
        walk = self._walk
        if walk.outcome is None and walk.rows < BATCH_ROWS:
            self._read(walk)
            return None
        return self._seal(walk, now_ms)

    def start_over(self) -> None:
        """Forget what was read and is not durable, and read it again: it may be another by now, or gone."""
        walk, self._walk = self._walk, None
        if walk is not None and self._intake.pulls.active is None:
            self._waiting.appendleft(walk.request)

    def _known(self) -> set[str]:
        state = self._intake.pulls
        under_way = {self._walk.request.id} if self._walk is not None else set()
        active = {state.active.id} if state.active is not None else set()
        waiting = {request.id for request in self._waiting} | {request.id for request, *_ in self._refused}
        return under_way | active | waiting | {one.id for one in state.answered}

    def _withdraw(self, pull_id: str, now_ms: int) -> None:
        self._intake.pulls = forget(self._intake.pulls, now_ms, pull_id)
        self._waiting = deque(request for request in self._waiting if request.id != pull_id)
        self._withdrawn = pull_id
        if self._walk is not None and self._walk.request.id == pull_id:
            self._walk.outcome = Outcome.WITHDRAWN

    def _begin(self, now_ms: int) -> Group | None:
        """Take up the pull that an earlier process was at, or the next that waits."""
        active = self._intake.pulls.active
        if active is not None:
            try:
                request = pulls.decode(active.request)
            except PullError as error:
                request = _unreadable(active.id, active.request, now_ms)
                return self._answer(request, Outcome.REFUSED, str(error), active, now_ms)
        elif self._waiting:
            request = self._waiting.popleft()
            if request.expires_at_ms <= now_ms:
                return self._answer(request, Outcome.EXPIRED, "", None, now_ms)
        else:
            return None
        try:
            pulled = self._pulled_for(request)
        except PullError as error:
            return self._answer(request, Outcome.REFUSED, str(error), active, now_ms)
        progress = active or Progress(
            request.id, pulls.encode(request), self._intake.next_record, self._intake.next_seq(request.contract)
        )
        self._walk = _Walk(request, self._intake.parts, pulled, progress)
        if self._withdrawn == request.id:
            self._walk.outcome = Outcome.WITHDRAWN
        _log.info("pull %s of %s begins at record %d", request.id, request.contract, progress.next_record)
        return None

    def _pulled_for(self, request: PullRequest) -> Contract:
        """Return the contract that the rows will follow. Raises PullError when there is nothing to be had."""
        plan = self._intake.parts.plan
        if plan.pulls is None:
            raise PullError(f"pull {request.id}: the device's bundle has no contract {pulls.PULLS!r}")
        stream = next((one for one in plan.streams if one.source.id == request.contract), None)
        if stream is None:
            known = ", ".join(sorted(one.source.id for one in plan.streams))
            raise PullError(f"pull {request.id}: contract {request.contract!r}: this device observes only {known}")
        if stream.source.consent_field is not None:
            raise PullError(
                f"pull {request.id}: contract {request.contract} needs consent: no refusal would reach the rows of an "
                "answer: ask for another contract"
            )
        if not self._stores:
            raise PullError(f"pull {request.id}: this device has no raw ring: give it spool.ring_hours")
        if stream.pulled is None or stream.pulled != pulled_of(stream.source):
            raise PullError(f"pull {request.id}: the device's bundle has no contract for pulled {request.contract}")
        pulls.check(request, stream.source)
        return stream.pulled

    def _read(self, walk: _Walk) -> None:
        """Read a slice."""
        rows = 0
        for _ in range(SLICE_PLACES):
            if not walk.places:
                self._come_on(walk)
                return
            place = walk.places.popleft()
            walk.progress = walking.passed(walk.progress, walk.request, place)
            if walking.overlaps(place.times_us, walk.request):
                self._pick(walk, place)
                rows += place.rows
            if walk.progress.sent + walk.rows >= walk.request.rows_max:
                walk.outcome = Outcome.LIMITED
                return
            if rows >= SLICE_ROWS or walk.rows >= BATCH_ROWS:
                return

    def _come_on(self, walk: _Walk) -> None:
        """Go on to the next segment of the time asked for; end where there is none."""
        if walk.segment is not None:
            walk.progress = walking.left(walk.progress, walk.request, walk.segment)
            walk.came_from, walk.segment = walk.segment.number, None
        for segment in self._spool.segments:
            if segment.number <= walk.came_from or walk.request.contract not in segment.ranges:
                continue
            if segment.first_number is None or segment.first_number >= walk.progress.end_record:
                break
            is_new = segment.number > walk.progress.segment
            walk.progress = walking.entered(walk.progress, walk.request, segment)
            if walking.overlaps(segment.times_us.get(walk.request.contract), walk.request):
                self._enter(walk, segment, is_new)
                return
            walk.progress = walking.left(walk.progress, walk.request, segment)
            walk.came_from = segment.number
        walk.progress = walking.ended(walk.progress, walk.request)
        walk.outcome = Outcome.ANSWERED

    def _enter(self, walk: _Walk, segment: Segment, is_new: bool) -> None:
        contract, progress = walk.request.contract, walk.progress
        walk.segment = segment
        try:
            places = self._spool.places(segment.number, contract)
        except OSError as error:
            _log.error("segment %d in the spool: %s", segment.number, error.strerror)
            places = ()
        if is_new:
            found = tuple((block.place.first_seq, block.place.end_seq) for place in places for block in place.blocks)
            gone = walking.unnamed(segment.ranges[contract], found)
            walk.progress = walking.lacking(walk.progress, gone, ranges.size(gone))
        asked = [one for one in places if progress.next_record <= one.number < progress.end_record]
        walk.places.extend(asked)

    def _pick(self, walk: _Walk, place: Place) -> None:
        """Pick out of one record; what has rotted, or is of a form that no bundle of the device has, is missing."""
        for block in place.blocks:
            try:
                data = self._spool.read(block.place)
                if data is None:
                    raise BatchFormatError("it has rotted")
                picked = walk.selection.pick(block, data)
            except (OSError, BatchError) as error:
                if block.ref.rows:
                    _log.error("%s %d in the spool: %s", block.ref.contract, block.ref.first_seq, error)
                    span = (block.place.first_seq, block.place.end_seq)
                    walk.progress = walking.lacking(walk.progress, (span,), block.ref.rows)
                continue
            progress = walk.progress
            walk.progress = replace(
                progress, examined=progress.examined + picked.examined, matched=progress.matched + len(picked)
            )
            if len(picked):
                walk.picked.append(picked)
                walk.rows += len(picked)

    def _seal(self, walk: _Walk, now_ms: int) -> Group | None:
        """Make a group of what was picked, and of the answer if there is no more."""
        request, progress = walk.request, walk.progress
        rows: list[tuple[Contract, dict[str, Column]]] = []
        if walk.picked:
            sent = min(walk.rows, request.rows_max - progress.sent)
            rows.append((walk.pulled, walk.selection.columns(walk.picked, sent)))
            progress = replace(progress, sent=progress.sent + sent)
        walk.picked, walk.rows = [], 0
        if walk.outcome is not None:
            self._walk = None
            return self._answer(request, walk.outcome, "", progress, now_ms, rows)
        group = self._intake.pull(rows, replace(self._intake.pulls, active=progress), now_ms)
        sent_bytes = progress.sent_bytes + sum(len(batch.data) for batch in group.batches)
        walk.progress = replace(progress, sent_bytes=sent_bytes)
        if sent_bytes >= request.bytes_max:
            walk.outcome = Outcome.LIMITED
        return group

    def _answer(
        self,
        request: PullRequest,
        outcome: Outcome,
        reason: str,
        progress: Progress | None,
        now_ms: int,
        rows: Sequence[tuple[Contract, dict[str, Column]]] = (),
    ) -> Group | None:
        _log.info("pull %s: %s %s", request.id, outcome.value, reason)
        contract, state = self._intake.parts.plan.pulls, remember(forget(self._intake.pulls, now_ms), request)
        if contract is None:
            self._intake.pulls = state
            self._say(f"{reason or request.id}: nobody can be answered")
            return None
        answer = (contract, answer_columns(request, outcome, reason, progress, now_ms))
        return self._intake.pull((*rows, answer), state, now_ms)


def _unreadable(pull_id: str, document: bytes, now_ms: int) -> PullRequest:
    """Return a request to answer in place of one that cannot be followed."""
    try:
        claimed = msgspec.json.decode(document, type=_Claimed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        claimed = _Claimed()
    return PullRequest(
        id=pull_id,
        contract=claimed.contract[:NAME_CHARS_MAX] or "unknown",
        from_us=0,
        to_us=1,
        asked_at_ms=now_ms,
        expires_at_ms=now_ms + VALID_MS_MAX,
        asked_by=claimed.asked_by[:NAME_CHARS_MAX],
    )
