"""What to say about records that rotted, once the lake's watermarks are known."""

from collections.abc import Mapping

from contracts import ranges
from contracts.ranges import RangeSet
from edge_agent.core.accounts import Count
from edge_agent.core.intake import Intake
from edge_agent.core.record import Settled
from edge_agent.core.recovery import Recovered, ranges_of
from edge_agent.core.spool import Group


def settle(intake: Intake, recovered: Recovered, committed: Mapping[str, RangeSet], now_ms: int) -> Group:
    """Return the group that accounts for every missing range.

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
    return intake.settle(lost, held, _credited(recovered, held), now_ms)


def _credited(recovered: Recovered, held: list[Settled]) -> list[Count]:
    """Return the counts of streams that damaged records accounted for and the lake holds in full."""
    covered: dict[str, RangeSet] = {}
    for part in held:
        covered[part.contract] = ranges.add(covered.get(part.contract, ()), part.first_seq, part.end_seq)
    return [
        count
        for meta in recovered.damaged
        for contract, spans in ranges_of(meta).items()
        if all(ranges.covers(covered.get(contract, ()), *span) for span in spans)
        for count in meta.counts
        if count.stream == contract
    ]
