"""What a committer makes of handovers: which of them the table takes, and what it accounts for then. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from contracts import ranges
from contracts.ranges import RangeSet
from lakehouse.handover import Claim, Handover
from lakehouse.positions import Positions, highest, of_logs
from lakehouse.streams import StreamKey

# Ids remembered against repeats. A restored job repeats what it decided since its last checkpoint, seconds at most;
# 10,000 are ten seconds of the highest rate a rule set may reach, and 160 KB in every root file of that table.
DECISION_IDS_MAX: Final = 10_000


class Account(Struct, frozen=True):
    """What a table accounts for, as far as settling asks."""

    streams: Mapping[StreamKey, RangeSet]
    floors: Positions = {}
    logs: Mapping[str, str] = {}
    held: Mapping[StreamKey, RangeSet] = {}
    ids: tuple[bytes, ...] = ()


class Settled(Struct, frozen=True):
    """`changed` are the streams that grow, with all their ranges; the other figures are those of the next state."""

    taken: tuple[Handover, ...]
    stale: tuple[Handover, ...]
    changed: dict[StreamKey, RangeSet]
    floors: Positions
    logs: dict[str, str]
    held: dict[StreamKey, RangeSet]
    ids: tuple[bytes, ...]


def settle(handovers: Sequence[Handover], account: Account, oldest_ms: int) -> Settled:
    """Take handovers in their order, each whole or not at all.

    One is stale when the table, or a handover before it, accounts for a number that it claims; when it was made of
    messages below the table's floors, all of which are settled; when its files were written before `oldest_ms`.
    """
    changed: dict[StreamKey, RangeSet] = {}
    held = dict(account.held)
    floors, logs = dict(account.floors), dict(account.logs)
    ids = dict.fromkeys(account.ids)
    taken: list[Handover] = []
    stale: list[Handover] = []
    for handover in handovers:
        own = of_logs(floors, logs, logs | handover.logs)
        grown = grown_held = None
        if _is_timely(handover, own, oldest_ms) and not any(found in ids for found in handover.ids):
            grown = _grown(handover.claims, account.streams, changed)
            grown_held = _grown(handover.held, held, {})
        if grown is None or grown_held is None:
            stale.append(handover)
            continue
        changed |= grown
        held = _without(held | grown_held, handover.released)
        floors, logs = highest((own, handover.floors)), logs | handover.logs
        ids |= dict.fromkeys(handover.ids)
        taken.append(handover)
    return Settled(tuple(taken), tuple(stale), changed, floors, logs, held, tuple(ids)[-DECISION_IDS_MAX:])


def _is_timely(handover: Handover, floors: Mapping[str, int], oldest_ms: int) -> bool:
    return handover.written_at_ms >= oldest_ms and all(
        offset >= floors.get(partition, 0) for partition, offset in handover.begins.items()
    )


def _grown(
    claims: Iterable[Claim], known: Mapping[StreamKey, RangeSet], changed: Mapping[StreamKey, RangeSet]
) -> dict[StreamKey, RangeSet] | None:
    """Return the streams with their claims, None when a claim is not new."""
    grown: dict[StreamKey, RangeSet] = {}
    for claim in claims:
        held = grown.get(claim.key) or changed.get(claim.key) or known.get(claim.key, ranges.EMPTY)
        both = ranges.union((*held, *claim.ranges))
        if ranges.size(both) != ranges.size(held) + ranges.size(claim.ranges):
            return None
        grown[claim.key] = both
    return grown


def _without(held: dict[StreamKey, RangeSet], released: Iterable[Claim]) -> dict[StreamKey, RangeSet]:
    for claim in released:
        left = ranges.without(held.pop(claim.key, ranges.EMPTY), claim.ranges)
        if left:
            held[claim.key] = left
    return held
