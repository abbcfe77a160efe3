"""Batches that the spool can no longer give back: which ranges they account for, and what that means for the ledger."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import LEDGER, Explained
from edge_agent.core.spool.record import BatchRef, Meta


class Damage(Struct, frozen=True):
    """A batch that has rotted: it accounted for [first_seq, first_seq + span) with `rows` rows, None when unknown.

    `again` are the ledger entries that it held, if it was a ledger batch. `withdrawn` says that it did not rot: the
    person that its rows are of has refused, and their key was destroyed.
    """

    contract: str
    first_seq: int
    span: int
    rows: int | None
    again: tuple[Explained, ...] = ()
    withdrawn: bool = False

    @property
    def end_seq(self) -> int:
        """First sequence number after the batch."""
        return self.first_seq + self.span


def damages_of(held: Mapping[str, RangeSet], metas: Iterable[Meta]) -> tuple[Damage, ...]:
    """Return the ranges of a segment that none of the records found in it accounts for."""
    found: dict[str, list[tuple[int, int]]] = {}
    for meta in metas:
        for ref in meta.batches:
            found.setdefault(ref.contract, []).append((ref.first_seq, ref.end_seq))
    damages: list[Damage] = []
    for contract, spans in held.items():
        there = ranges.union(found.get(contract, ()))
        for first, end in spans:
            damages += [Damage(contract, low, high - low, None) for low, high in ranges.missing(there, first, end)]
    return tuple(damages)


def damage_of(ref: BatchRef, meta: Meta) -> Damage:
    """Return what is gone with one batch of a record whose metadata is known."""
    again: tuple[Explained, ...] = ()
    if ref.contract == LEDGER:
        first = min(other.first_seq for other in meta.batches if other.contract == LEDGER)
        again = _slice(meta.explained, ref.first_seq - first, ref.rows)
    return Damage(ref.contract, ref.first_seq, ref.span, ref.rows, again)


def _slice(explained: tuple[Explained, ...], first: int, rows: int) -> tuple[Explained, ...]:
    """Return the accounts that the rows [first, first + rows) of a record's ledger batches were about."""
    taken: list[Explained] = []
    at = 0
    for one in explained:
        part = one.counts[max(0, first - at) : max(0, first + rows - at)]
        if part:
            taken.append(Explained(one.first_seq, one.end_seq, part))
        at += len(one.counts)
    return tuple(taken)
