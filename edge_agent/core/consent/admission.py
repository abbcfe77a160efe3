"""Which events of an offer are new, where some of those before them only wait in memory.

A producer's mark says that numbers below `next` were heard, and which of these are `open`: not accounted for by the
spool. What waits in memory is open; after a restart it is open and waits nowhere, so that it is new when it comes again
and what came between is not. A producer that goes on at `next` instead does not have it any more, and no number stays
open for it. The mark is durable together with the events it speaks of, as in `core.sources.producers`.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct
from msgspec.structs import replace

from contracts import ranges
from edge_agent.core.consent.waiting import RUNS_MAX
from edge_agent.core.sources.offers import Offered, Settled
from edge_agent.core.sources.producers import Mark, Producers, key_of, moved, unfit


class Opening(Struct, frozen=True):
    """`places` are the lines of the offer that are new; `producers` holds if all of these stay open.

    `refusal` is set when the offer cannot be taken as its numbers do not fit.
    """

    producers: Producers
    places: tuple[int, ...]
    refusal: Settled | None = None


def opening_of(producers: Producers, offered: Offered, waiting: Collection[int]) -> Opening:
    """Decide which lines are new; `waiting` are the numbers of the producer's events that wait in memory."""
    size, first = len(offered.lines), offered.first_number
    if offered.producer is None or first is None or not size:
        return Opening(producers, tuple(range(size)))
    key = key_of(offered)
    mark = producers.marks.get(key, Mark(first, first, 0))
    if (refusal := unfit(mark, offered)) is not None:
        return Opening(producers, (), refusal)
    spans = [range(max(low, first), min(high, first + size)) for low, high in mark.open]
    again = {number for span in spans for number in span if number not in waiting}
    places = tuple(place for place in range(size) if first + place >= mark.next or first + place in again)
    if first + size <= mark.next:
        return Opening(producers, places)
    before = mark.open if first < mark.next else ranges.union((number, number + 1) for number in waiting)
    open_ = ranges.add(before, max(first, mark.next), first + size)
    return Opening(moved(producers, key, replace(mark, next=first + size, open=open_)), places)


def closed(producers: Producers, key: str, numbers: Iterable[int]) -> Producers:
    """Return the marks once events with these numbers are accounted for."""
    mark = producers.marks.get(key)
    if mark is None:
        return producers
    gone = ranges.union((number, number + 1) for number in numbers)
    # The oldest are given up first: their producer has had the most time to send them again.
    left = [span for low, high in mark.open for span in ranges.missing(gone, low, high)][-RUNS_MAX:]
    return replace(producers, marks=producers.marks | {key: replace(mark, open=tuple(left))})


def held_from(producers: Producers, key: str) -> int | None:
    """Return the lowest number of a producer that is not accounted for, None when there is no such."""
    mark = producers.marks.get(key)
    return mark.open[0][0] if mark is not None and mark.open else None


def open_in(producers: Producers, key: str, first: int, size: int) -> int:
    """Return how many of the numbers [first, first + size) are not accounted for."""
    mark = producers.marks.get(key)
    if mark is None:
        return 0
    return sum(max(0, min(high, first + size) - max(low, first)) for low, high in mark.open)
