"""Watermarks that follow from what a table accounts for. Pure."""

from collections.abc import Iterable

from contracts.ranges import RangeSet
from contracts.topics import is_origin
from contracts.watermark import Watermark
from lakehouse.state import Known


def watermarks(
    contract: str, known: Known, snapshot_id: int, now_ms: int, origins: Iterable[str] | None = None
) -> list[Watermark]:
    """Return one watermark per origin, for its newest epoch; `origins` limits them to some.

    The quarantine's state also holds ranges of other contracts, and a table's those that were put back from there: they
    are no receipt for anything.
    """
    wanted = None if origins is None else frozenset(origins)
    newest: dict[str, tuple[int, RangeSet]] = {}
    for key, committed in known.items():
        if key.contract != contract or not is_origin(key.origin) or (wanted is not None and key.origin not in wanted):
            continue
        if key.origin not in newest or newest[key.origin][0] < key.epoch:
            newest[key.origin] = (key.epoch, committed)
    return [
        Watermark(origin, contract, epoch, committed, snapshot_id, now_ms)
        for origin, (epoch, committed) in sorted(newest.items())
    ]
