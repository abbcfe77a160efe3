"""How far the answer to a pull has come. It is durable with the rows that it speaks of, in the same record."""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from contracts.pulls import PullRequest
from contracts.ranges import RangeSet

REMEMBERED_MAX: Final = 32  # pulls; each takes 27 bytes of every record's metadata until its request is gone
REMEMBERED_MS: Final = 86_400_000  # ms, a day after it expired; a broker whose clock lags may still hold the request


class Progress(Struct, frozen=True, array_like=True):
    """A pull under way; records before `next_record` are looked at, those from `end_record` on are not asked about.
    `end_seq` is the number of the stream's first event in these.

    `request` is its document. `segment` is the newest segment that was come to, `seq_at` the number of the stream's
    event up to which nothing is open, `last_us` the newest event time before. `missing` are the ranges of
    `missing_events` events that are not there any more. Events older than `held_since_us` were deleted; None when none
    of those could be meant.
    """

    id: str
    request: bytes
    end_record: int
    end_seq: int
    next_record: int = 0
    segment: int = -1
    seq_at: int | None = None
    last_us: int | None = None
    examined: int = 0
    matched: int = 0
    sent: int = 0
    sent_bytes: int = 0
    missing: RangeSet = ()
    missing_events: int = 0
    held_since_us: int | None = None


class Remembered(Struct, frozen=True, array_like=True):
    """A pull that is not done again."""

    id: str
    expires_at_ms: int


class PullState(Struct, frozen=True, array_like=True):
    """What a restart must know of pulls."""

    active: Progress | None = None
    answered: tuple[Remembered, ...] = ()


def remember(state: PullState, request: PullRequest) -> PullState:
    """Return the state after a pull was answered; another one may be under way."""
    active = state.active if state.active is not None and state.active.id != request.id else None
    return PullState(active, (*state.answered, Remembered(request.id, request.expires_at_ms)))


def forget(state: PullState, now_ms: int, withdrawn: str = "") -> PullState:
    """Return the state without pulls that nobody can ask for again: their requests were taken back, or are too old."""
    kept = tuple(one for one in state.answered if one.id != withdrawn and one.expires_at_ms + REMEMBERED_MS > now_ms)
    return state if len(kept) == len(state.answered) else replace(state, answered=kept)
