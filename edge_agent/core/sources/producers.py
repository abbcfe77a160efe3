"""Which events of which producer the spool accounts for: what tells a resent event from a new one.

A producer numbers its events and holds them until they are acknowledged. Acknowledgements get lost, producers and the
agent restart, and then events come again. The value here is durable together with the events it speaks of (it goes
into the metadata of the spool record that holds them), so that what is durable is known and what is not is not.

How the agent uses it (`core.admissions`), and why each event is taken exactly once:

1. admit    every offer in the order it came, against the newest value, durable or not. Each admission names the lines
            that are new, and the next value.
2. append   the new lines and the last value become durable in one record. Crash before: neither the events nor the
            knowledge of them is there, and no producer was told; they come again and are new.
3. settle   all offers of that record, duplicates among them. Crash before: they come again and are known.

An offer that was a duplicate of events still on their way to the disk is settled with them, never before.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from contracts.ranges import RangeSet
from edge_agent.core.sources.offers import Offered, Outcome, Settled

PRODUCERS_MAX: Final = (
    128  # producers; about 6 KB in each record; a tablet has a few apps, a machine some dozen sensors
)
PRODUCER_CHARS_MAX: Final = 64  # characters of a producer's name
NUMBER_MAX: Final = 2**53 - 1  # the largest number that every JSON library keeps exact

GAP: Final = "number_gap"
FORGOTTEN: Final = "number_forgotten"


class Mark(Struct, frozen=True, array_like=True):
    """Numbers [first, next) of one producer are accounted for, but for those that are `open`.

    `used` orders marks by when they last moved.
    """

    first: int
    next: int
    used: int
    open: RangeSet = ()


class Producers(Struct, frozen=True, array_like=True):
    """The marks of the `PRODUCERS_MAX` producers that were last heard of, by `key_of`."""

    marks: dict[str, Mark] = {}
    moves: int = 0

    def next_number(self, key: str) -> int | None:
        """Return the number expected next of a producer, None when it is not known."""
        mark = self.marks.get(key)
        return mark.next if mark is not None else None


class Admission(Struct, frozen=True):
    """`lines[new_from:]` of the offer are new; `producers` holds once they are durable, and then `settled` is true."""

    producers: Producers
    new_from: int
    settled: Settled


def is_producer(name: str) -> bool:
    """Say whether a name may be a producer's: 1 to `PRODUCER_CHARS_MAX` printable characters."""
    return 0 < len(name) <= PRODUCER_CHARS_MAX and name.isprintable()


def key_of(offered: Offered) -> str:
    """Return whose numbers an offer's are. Sources and contracts have no `/` in their names."""
    return f"{offered.source}/{offered.contract}/{offered.producer}"


def admit(producers: Producers, offered: Offered) -> Admission:
    """Decide which lines of an offer are new.

    Numbers below the known range are refused and not called duplicates: whether they were taken before the producer was
    forgotten, or never, is not known. Where gaps are allowed the way keeps the order, so lower numbers came before.
    """
    size = len(offered.lines)
    if offered.producer is None or offered.first_number is None or not offered.lines:
        known = producers.next_number(key_of(offered)) if offered.producer is not None else None
        return Admission(producers, 0, Settled(Outcome.TAKEN, accepted=size, next_number=known))
    key, first = key_of(offered), offered.first_number
    mark = producers.marks.get(key, Mark(first, first, 0))
    if (refusal := unfit(mark, offered)) is not None:
        return Admission(producers, size, refusal)
    duplicate = max(0, min(size, mark.next - first))
    settled = Settled(
        Outcome.TAKEN, accepted=size - duplicate, duplicate=duplicate, next_number=max(mark.next, first + size)
    )
    if duplicate == size:
        return Admission(producers, size, settled)
    return Admission(moved(producers, key, replace(mark, next=first + size)), duplicate, settled)


def unfit(mark: Mark, offered: Offered) -> Settled | None:
    """Return the refusal of an offer whose first number does not fit the mark, None when it does."""
    first = offered.first_number
    if first is None or offered.gaps:
        return None
    if first > mark.next:
        return _refused(mark, GAP, f"expected number {mark.next}, found {first}: send from there")
    if first < mark.first:
        reason = f"known from number {mark.first} on, found {first}: send older events under another producer name"
        return _refused(mark, FORGOTTEN, reason)
    return None


def moved(producers: Producers, key: str, mark: Mark) -> Producers:
    """Return the marks with one that has just moved; beyond `PRODUCERS_MAX` the one that moved longest ago goes."""
    moves = producers.moves + 1
    marks = producers.marks | {key: replace(mark, used=moves)}
    if len(marks) > PRODUCERS_MAX:
        del marks[min(marks, key=lambda name: marks[name].used)]
    return Producers(marks, moves)


def _refused(mark: Mark, code: str, reason: str) -> Settled:
    return Settled(Outcome.REFUSED, next_number=mark.next, code=code, reason=reason)
