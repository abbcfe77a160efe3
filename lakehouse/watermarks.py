"""Watermarks that follow from what a table accounts for. Pure."""

from collections.abc import Iterable

from contracts.topics import is_origin
from contracts.watermark import Watermark
from lakehouse.streams import Streams


def watermarks(
    contract: str, streams: Streams, snapshot_id: int, now_ms: int, origins: Iterable[str]
) -> list[Watermark]:
    """Return one watermark for each of some origins, of its newest epoch; none for one that the table does not know.

    What was put back from the quarantine is accounted for under names that no origin has, and is nobody's receipt.
    """
    found: list[Watermark] = []
    for origin in sorted(filter(is_origin, set(origins))):
        newest = streams.newest(contract, origin)
        if newest is not None:
            epoch, committed = newest
            found.append(Watermark(origin, contract, epoch, committed, snapshot_id, now_ms))
    return found
