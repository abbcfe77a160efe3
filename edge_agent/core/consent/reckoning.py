"""What the spool holds under a key that was destroyed, read from its metadata alone."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.record import Meta


class Found(Struct, frozen=True):
    """Rows and events by contract; `damages` are batches of `spool` that no record has accounted for yet."""

    spool: dict[str, int] = {}
    ring: dict[str, int] = {}
    damages: tuple[Damage, ...] = ()

    def joined(self, other: "Found") -> "Found":
        """Return both together."""
        return Found(_sums(self.spool, other.spool), _sums(self.ring, other.ring), self.damages + other.damages)


def found_in(
    metas: Iterable[Meta], key: int, committed: Mapping[str, RangeSet], settled: Mapping[str, RangeSet]
) -> Found:
    """Return what records hold under a key.

    A batch counts to the spool unless the lake is known to hold it; one that a record has settled did, also when the
    lake has by now what stands in its place.
    """
    spool: dict[str, int] = {}
    ring: dict[str, int] = {}
    damages: list[Damage] = []
    for meta in metas:
        for ref in meta.batches:
            if ref.key != key:
                continue
            is_settled = _covers(settled.get(ref.contract, ()), ref.first_seq, ref.end_seq)
            is_held = _covers(committed.get(ref.contract, ()), ref.first_seq, ref.end_seq)
            counts = ring if is_held and not is_settled else spool
            counts[ref.contract] = counts.get(ref.contract, 0) + ref.rows
            if not is_settled and not is_held:
                damages.append(Damage(ref.contract, ref.first_seq, ref.span, ref.rows, withdrawn=True))
        for block in meta.stored:
            if block.key == key:
                ring[block.contract] = ring.get(block.contract, 0) + block.rows
    return Found(spool, ring, tuple(damages))


def _covers(held: RangeSet, first: int, end: int) -> bool:
    # A spool of two people in turn has ten thousand ranges that a record has settled, and as many batches to look up.
    after = bisect_left(held, (end,))
    return ranges.covers(held[max(0, bisect_left(held, (first + 1,)) - 1) : after], first, end)


def _sums(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}
