"""What to say about records that rotted, once the lake's watermarks are known.

What holds when a start finds rotten records and the segments' indexes still know their metadata:

- The device's own sums are exact: every record counts its own events, and those of a lost record are lost.
- Events that the lake does not hold are lost. Another record may hold the entries that say otherwise of them: owed in
  the newest metadata, or sealed into a ledger batch some seconds later. They are taken out of the owed entries, and a
  ledger batch that is not in the lake yet is sent corrected, under the numbers it had. Until then none is sent.
- A ledger batch that rotted unsent is lost as such, the entries in it are not: they go again under further numbers.
- If the newest record rotted, the index has its owed entries too.

What does not hold: where the lake committed a ledger batch before the events it speaks of and these then rotted, where
an index has rotted too, or a second start finds further rot before a correction was sent, entries may stay beside the
`lost` one. The ledger's sums in the lake then exceed what was observed, which is what its readers look for; no loss is
silent.
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from contracts import ranges
from contracts.ledger import Fate
from contracts.ranges import RangeSet
from edge_agent.core.accounts import LEDGER, Count, Explained
from edge_agent.core.record import BatchRef, Meta, Settled
from edge_agent.core.recovery import Recovered, ranges_of


class Settlement(Struct, frozen=True):
    """What becomes of every missing range: `lost`, or `held` by the lake, with the counts of its records `credited`.

    `gone` is what rotten records counted lost events as, `again` the entries of lost ledger batches without these,
    `corrected` the entries, by first number, of ledger batches that spoke of them and are not in the lake.
    """

    lost: tuple[Settled, ...] = ()
    held: tuple[Settled, ...] = ()
    credited: tuple[Count, ...] = ()
    gone: tuple[Explained, ...] = ()
    again: tuple[Explained, ...] = ()
    corrected: dict[int, tuple[Explained, ...]] = {}


def settlement_of(recovered: Recovered, committed: Mapping[str, RangeSet]) -> Settlement:
    """Decide about every missing range.

    What the lake holds was delivered before it rotted here: its record's counts stand, where the index still knows
    them. The rest is lost.
    """
    lost: list[Settled] = []
    held: list[Settled] = []
    for contract, gaps in sorted(recovered.missing.items()):
        there = committed.get(contract, ())
        for first, end in gaps:
            absent = ranges.missing(there, first, end)
            lost.extend(Settled(contract, *gap) for gap in absent)
            held.extend(Settled(contract, *part) for part in ranges.missing(absent, first, end))
    gone = tuple(
        Explained(spans[0][0], spans[-1][1], counts) for _, _, spans, counts in _within(recovered.damaged, lost)
    )
    return Settlement(
        lost=tuple(lost),
        held=tuple(held),
        credited=tuple(count for *_, counts in _within(recovered.damaged, held) for count in counts),
        gone=gone,
        again=tuple(_again(recovered.damaged, lost, gone)),
        corrected=dict(_corrected(recovered.ledgers, committed.get(LEDGER, ()), gone)),
    )


def _within(damaged: tuple[Meta, ...], parts: list[Settled]) -> Iterator[tuple[Meta, str, RangeSet, tuple[Count, ...]]]:
    """Yield the streams of damaged records that lie within these parts in full, with what the records counted."""
    covered = _by_contract(parts)
    for meta in damaged:
        for contract, spans in ranges_of(meta).items():
            if all(ranges.covers(covered.get(contract, ()), *span) for span in spans):
                yield meta, contract, spans, tuple(count for count in meta.counts if count.stream == contract)


def _again(damaged: tuple[Meta, ...], lost: list[Settled], gone: tuple[Explained, ...]) -> Iterator[Explained]:
    """Yield the entries of ledger batches that rotted unsent; what they called lost and is lost again is said anew."""
    covered = _by_contract(lost)
    for meta, contract, _, _ in _within(damaged, lost):
        for said in meta.explained if contract == LEDGER else ():
            kept = tuple(
                count
                for count in said.without(gone).counts
                if count.fate != Fate.LOST.value
                or not ranges.covers(covered.get(count.stream, ()), said.first_seq, said.end_seq)
            )
            yield Explained(said.first_seq, said.end_seq, kept)


def _corrected(
    ledgers: tuple[Meta, ...], committed: RangeSet, gone: tuple[Explained, ...]
) -> Iterator[tuple[int, tuple[Explained, ...]]]:
    """Yield ledger batches that speak of lost events and are still here alone. An account of zero keeps its row."""
    for meta in ledgers:
        batches = [ref for ref in meta.batches if ref.contract == LEDGER]
        entries = tuple(said.without(gone) for said in meta.explained)
        # A batch that was too large for one would be cut at other rows, into ranges that overlap the old ones.
        whole = len(batches) == 1 and batches[0].rows == sum(len(said.counts) for said in entries)
        if whole and entries != meta.explained and ranges.missing(committed, *_range_of(batches[0])):
            yield batches[0].first_seq, entries


def _range_of(ref: BatchRef) -> tuple[int, int]:
    return ref.first_seq, ref.first_seq + ref.span


def _by_contract(parts: list[Settled]) -> dict[str, RangeSet]:
    covered: dict[str, RangeSet] = {}
    for part in parts:
        covered[part.contract] = ranges.add(covered.get(part.contract, ()), part.first_seq, part.end_seq)
    return covered
