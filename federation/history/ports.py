"""The seam between the history and the table that holds it."""

from datetime import datetime
from typing import Protocol

from msgspec import Struct

from federation.history.model import StreamMark
from federation.history.segments import Segment


class FileBounds(Struct, frozen=True):
    """One live data file and the asset ids it may hold; None where the file's metadata does not say.

    `key` names the file's live rows: it changes when a later commit deletes rows of the same file. Bounds may be
    shortened prefixes, so `high` of "asset-9" covers all ids that begin with it.
    """

    key: str
    low: str | None
    high: str | None

    def may_hold(self, asset_id: str) -> bool:
        """Say whether the asset's rows can be in this file."""
        if self.low is not None and asset_id < self.low:
            return False
        return self.high is None or asset_id <= self.high or asset_id.startswith(self.high)


class TableVersion(Struct, frozen=True):
    """One snapshot of the table: its live files and what the ingest says it holds."""

    pointer: str
    snapshot_id: int
    committed_at: datetime
    files: tuple[FileBounds, ...]
    origins: tuple[StreamMark, ...]


class HistoryTable(Protocol):
    """A table whose versions are named by a pointer. Methods raise StoreUnavailableError or HistoryTableError."""

    def pointer(self) -> str | None:
        """Return what names the newest version, cheaply; None when there is no table yet."""
        ...

    def version(self, pointer: str) -> TableVersion | None:
        """Read a version; None when the table has no snapshot yet."""
        ...

    def read(self, key: str) -> Segment:
        """Read the live rows of one file of a version read before."""
        ...
