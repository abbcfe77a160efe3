"""What passes between the sources that are pushed to and the agent: events offered, and what became of them."""

from enum import Enum

from msgspec import Struct


class Offered(Struct, frozen=True):
    """Events of one contract that a producer has handed over and holds on to until it hears of them.

    `ticket` names the offer towards `source`. `lines` hold one event each, whatever is in them. `first_number` is the
    producer's own number of the first line, the others follow on; without it a resend cannot be told from new events.
    An offer without lines asks up to where the producer is known. `gaps`: the way the events came keeps their order and
    may lose some, so that a number may be passed over.
    """

    source: str
    ticket: int
    contract: str
    lines: tuple[bytes, ...]
    producer: str | None = None
    first_number: int | None = None
    gaps: bool = False


class Wish(Enum):
    """What is asked of a person's consent; the value is the word in requests."""

    GRANT = "grant"
    REFUSE = "refuse"
    SHOW = "show"


class Asked(Struct, frozen=True):
    """A person's decision that an app passes on, or the question for it; `ticket` as in `Offered`."""

    source: str
    ticket: int
    person: str
    wish: Wish


class Decided(Struct, frozen=True):
    """What holds for a person now. `waiting` events are in memory; `purged` says how many a refusal took from there."""

    standing: str
    decision: int | None = None
    waiting: int = 0
    purged: int = 0


class SourceFailed(Struct, frozen=True):
    """A source has stopped by a fault of its own and takes no more events."""

    source: str
    reason: str


class Outcome(Enum):
    """What became of an offer as a whole."""

    TAKEN = "taken"  # every event is durable, dropped by a rule, in a durable window, known already, or held
    REFUSED = "refused"  # no event was taken, and none will be when the same is offered again
    BUSY = "busy"  # no event was taken; offer it again later


class Settled(Struct, frozen=True):
    """The agent's answer to one offer. When it was taken, `accepted` + `duplicate` + `held` are its lines, else 0.

    `held` events are in memory only, until their persons have decided; `held_from` is the number of the first such
    event of this producer, or of one that was such and was not sent again after a restart.
    `next_number` is the number of the first event not yet heard from this producer, None where it is not known.
    `decided` answers what was said of a person's consent. `code` and `reason` say why an offer was refused or could not
    be taken now.
    """

    outcome: Outcome
    accepted: int = 0
    duplicate: int = 0
    next_number: int | None = None
    code: str = ""
    reason: str = ""
    held: int = 0
    held_from: int | None = None
    decided: Decided | None = None


BUSY_CODE = "busy"


def busy(reason: str) -> Settled:
    """Return the answer to an offer that cannot be taken now."""
    return Settled(Outcome.BUSY, code=BUSY_CODE, reason=reason)
