"""Which segments may go: the lake holds all of them, and nobody on the device may ask for them any more."""

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from edge_agent.core.spool.segment import Segment


class Retention(Struct, frozen=True):
    """How long events stay on the device once the lake holds what travelled of them; the default is not at all."""

    age_ms: int = 0
    size_bytes: int = 0


def expired(
    done: Collection[Segment], retention: Retention, first_seqs: Mapping[str, int], now_ms: int
) -> tuple[int, ...]:
    """Return the numbers of segments that are too old, or more than there is room for, the oldest first.

    A segment stays if it has events of a stream from its number in `first_seqs` on: open windows need them.
    """
    excess = sum(segment.size_bytes for segment in done) - retention.size_bytes
    found: list[int] = []
    for segment in sorted(done, key=lambda segment: segment.number):
        is_old = segment.last_ms + retention.age_ms <= now_ms
        if (is_old or excess > 0) and not reaches(segment, first_seqs.items()):
            found.append(segment.number)
            excess -= segment.size_bytes
    return tuple(found)


def reaches(segment: Segment, first_seqs: Iterable[tuple[str, int]]) -> bool:
    """Say whether a segment holds events of a stream from its number on."""
    return any(contract in segment.ranges and segment.ranges[contract][-1][1] > first for contract, first in first_seqs)
