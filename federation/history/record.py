"""Which entries of an asset's record stand at a moment, corrections applied. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from federation.history.model import Entry, StandingEntry

CORRECTION_LINKS_MAX: Final = 100  # links; a chain this long is a defect of the tablet, and must not hold a request


def standing(entries: Iterable[Entry], as_of: datetime | None = None) -> tuple[StandingEntry, ...]:
    """Return the entries that stand, in event order.

    `as_of` is the record as known by the events that occurred up to then, itself included: a later correction is not
    known yet, so what it corrects still stands. An entry is hidden when another one of the asset names it as
    superseded, whichever of the two tablets' clocks runs ahead; an entry that names itself hides nothing.
    """
    known = sorted(
        (entry for entry in entries if as_of is None or entry.occurred_at <= as_of),
        key=lambda entry: (entry.occurred_at, entry.origin, entry.epoch, entry.seq),
    )
    supersedes = {e.entry_id: e.supersedes for e in known if e.supersedes is not None and e.supersedes != e.entry_id}
    hidden = frozenset(supersedes.values())
    return tuple(
        StandingEntry(
            entry_id=entry.entry_id,
            kind=entry.kind,
            work_order_id=entry.work_order_id,
            status=entry.status,
            part_no=entry.part_no,
            note=entry.note,
            technician=entry.technician,
            occurred_at=entry.occurred_at,
            corrects=_chain(entry.entry_id, supersedes),
        )
        for entry in known
        if entry.entry_id not in hidden
    )


def _chain(entry_id: str, supersedes: Mapping[str, str]) -> tuple[str, ...]:
    links: list[str] = []
    at = supersedes.get(entry_id)
    while at is not None and at not in links and len(links) < CORRECTION_LINKS_MAX:
        links.append(at)
        at = supersedes.get(at)
    return tuple(links)
