"""Values of the history: entries as they stand in the table, and the answer that is made of them."""

from datetime import datetime

from msgspec import Struct


class Entry(Struct, frozen=True):
    """One row of the service history. Event order is (occurred_at, origin, epoch, seq); times are UTC."""

    entry_id: str
    kind: str
    work_order_id: str
    status: str | None
    part_no: str | None
    note: str | None
    technician: str
    supersedes: str | None
    occurred_at: datetime
    origin: str
    epoch: int
    seq: int


class StandingEntry(Struct, frozen=True):
    """An entry that no other supersedes. `corrects`: the entries it replaces, the directly named one first."""

    entry_id: str
    kind: str
    work_order_id: str
    status: str | None
    part_no: str | None
    note: str | None
    technician: str
    occurred_at: datetime
    corrects: tuple[str, ...] = ()


class StreamMark(Struct, frozen=True):
    """What the table holds of one origin's epoch. `committed`: half-open ranges of seq; all below `upto` are there."""

    origin: str
    epoch: int
    upto: int
    committed: tuple[tuple[int, int], ...]


class Completeness(Struct, frozen=True):
    """The snapshot that answered, and per origin the sequence numbers that are in it; later ones are not."""

    snapshot_id: int
    committed_at: datetime
    origins: tuple[StreamMark, ...]


class History(Struct, frozen=True):
    """The record of one asset as known by the events that occurred up to `as_of` (None: all that the table holds)."""

    asset_id: str
    as_of: datetime | None
    entries: tuple[StandingEntry, ...]
    complete_up_to: Completeness
