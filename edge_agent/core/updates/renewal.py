"""When a device asks for its next certificate, and what it does until that has proved itself: events in, wishes out.

```
RESTING --due--> MAKING --request made--> ASKING --certificate--> INSTALLING --stored--> TRYING --connected--> RESTING
```

The present certificate opens connections until the next one has opened one; a next one that the broker does not let in
is thrown away. A request is repeated as it is, so an answer that was lost costs no second certificate.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

RENEW_AT: Final = 2 / 3  # of its life; leaves ten days of thirty in which the service may be away
JITTER: Final = 0.05  # of its life, at most, before that: a fleet that enrolled in one hour spreads over a day
MAKING_MS_MAX: Final = 60_000  # ms; the child needs half a second
ANSWER_MS_MAX: Final = 30_000  # ms; an answer takes milliseconds, then ask again
TRIES_MAX: Final = 3  # connections in a row that a next certificate may fail to open before it is thrown away
RETRY_MS_MIN: Final = 60_000  # ms; between two attempts; doubles, since a service that is away is away for a while
RETRY_MS_MAX: Final = 3_600_000  # ms; two hundred attempts are left in ten days

Step = Enum("Step", "RESTING MAKING ASKING INSTALLING TRYING")


class Validity(Struct, frozen=True):
    """The life of a certificate, Unix time in milliseconds."""

    not_before_ms: int
    not_after_ms: int


class Tick(Struct, frozen=True):
    """Time has passed."""


class Made(Struct, frozen=True):
    """The child has made key and request; `request` is what to publish."""

    request: bytes


class Answered(Struct, frozen=True):
    """A document arrived on the device's certificate topic."""

    document: bytes


class Stored(Struct, frozen=True):
    """The next certificate lies beside its key."""

    validity: Validity


class Failed(Struct, frozen=True):
    """What was wished for did not work: the child, the answer's content, the disk, or a refusal by the service."""

    why: str


class LinkUp(Struct, frozen=True):
    """A connection stands, opened by the next certificate (`by_next`) or by the present one."""

    by_next: bool


class LinkRefused(Struct, frozen=True):
    """A connection could not be opened, or was refused, with the next certificate while the broker was there."""


RenewalEvent: TypeAlias = Tick | Made | Answered | Stored | Failed | LinkUp | LinkRefused


class MakeRequest(Struct, frozen=True):
    """Wish: start the child; Made or Failed follows."""


class Publish(Struct, frozen=True):
    """Wish: publish this on the device's renewal topic, if the link is up; no matter if it is not."""

    request: bytes


class Store(Struct, frozen=True):
    """Wish: check the answer against the key and store it; Stored or Failed follows."""

    document: bytes


class ConnectWithNext(Struct, frozen=True):
    """Wish: connect anew with the next certificate, when it suits; LinkUp or LinkRefused follows."""


class Promote(Struct, frozen=True):
    """Wish: the next certificate is the present one from here on."""


class Discard(Struct, frozen=True):
    """Wish: remove the next certificate and its key; connect with the present one."""


Wish: TypeAlias = MakeRequest | Publish | Store | ConnectWithNext | Promote | Discard


class Renewal(Struct, frozen=True):
    """The state. `present` is None for a certificate of unknown life, which is never renewed."""

    present: Validity | None
    due_ms: int
    step: Step = Step.RESTING
    next: Validity | None = None
    request: bytes = b""
    until_ms: int = 0
    failures: int = 0
    tries: int = 0
    last_error: str = ""


def begin(present: Validity | None, random: Callable[[], float]) -> Renewal:
    """Return the state after a start without a next certificate. `random` returns a number from [0, 1)."""
    return Renewal(present, due_ms=0 if present is None else renew_at_ms(present, random()))


def begin_with_next(present: Validity | None, following: Validity, random: Callable[[], float]) -> Renewal:
    """Return the state after a start that found a next certificate which has not proved itself yet."""
    state = begin(present, random)
    return replace(state, step=Step.TRYING, next=following)


def renew_at_ms(validity: Validity, chance: float) -> int:
    """Return when a certificate is to be renewed: at two thirds of its life, or up to a twentieth of it earlier."""
    life_ms = validity.not_after_ms - validity.not_before_ms
    return validity.not_before_ms + int(life_ms * (RENEW_AT - JITTER * chance))


def connects_with_next(state: Renewal) -> bool:
    """Say whether the next connection is to be opened by the next certificate."""
    return state.step is Step.TRYING


def next_due_ms(state: Renewal) -> int | None:
    """Return when a Tick is due; None when nothing happens by itself."""
    if state.step in (Step.MAKING, Step.ASKING):
        return state.until_ms
    return state.due_ms if state.step is Step.RESTING and state.present is not None else None


def step(
    state: Renewal, event: RenewalEvent, now_ms: int, random: Callable[[], float]
) -> tuple[Renewal, tuple[Wish, ...]]:
    """Return the next state and what to do. An event that comes too late changes nothing."""
    match state.step, event:
        case Step.RESTING, Tick() if state.present is not None and now_ms >= state.due_ms:
            return replace(state, step=Step.MAKING, until_ms=now_ms + MAKING_MS_MAX), (MakeRequest(),)
        case Step.MAKING, Made(request=request):
            asking = replace(state, step=Step.ASKING, request=request, until_ms=now_ms + ANSWER_MS_MAX)
            return asking, (Publish(request),)
        case Step.MAKING, Tick() if now_ms >= state.until_ms:
            return _rest(state, now_ms, "making a key took too long")
        case Step.ASKING, Tick() if now_ms >= state.until_ms:
            return replace(state, until_ms=now_ms + ANSWER_MS_MAX), (Publish(state.request),)
        case Step.ASKING, LinkUp():
            return replace(state, until_ms=now_ms + ANSWER_MS_MAX), (Publish(state.request),)
        case Step.ASKING, Answered(document=document):
            return replace(state, step=Step.INSTALLING), (Store(document),)
        case Step.INSTALLING, Stored(validity=validity):
            return replace(state, step=Step.TRYING, next=validity, tries=0), (ConnectWithNext(),)
        case ((Step.MAKING | Step.ASKING | Step.INSTALLING), Failed(why=why)):
            return _rest(state, now_ms, why)
        case Step.TRYING, LinkUp(by_next=True) if state.next is not None:
            return begin(state.next, random), (Promote(),)
        case Step.TRYING, LinkRefused():
            tried = replace(state, tries=state.tries + 1)
            if tried.tries < TRIES_MAX:
                return tried, ()
            return _rest(tried, now_ms, f"the next certificate opened no connection in {TRIES_MAX} tries")
        case _:
            return state, ()


def _rest(state: Renewal, now_ms: int, why: str) -> tuple[Renewal, tuple[Wish, ...]]:
    """Begin again after a pause, with another key."""
    pause_ms = min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** min(state.failures, 16))
    rested = Renewal(state.present, due_ms=now_ms + pause_ms, failures=state.failures + 1, last_error=why)
    return rested, (Discard(),)
