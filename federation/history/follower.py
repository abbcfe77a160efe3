"""Follow the table beside the requests, so that a request finds everything in memory."""

import logging
import threading
from datetime import datetime
from typing import Final

from msgspec import Struct

from contracts.errors import FieldlakeError
from federation.errors import StoreUnavailableError
from federation.history.model import Completeness, Entry, History
from federation.history.ports import HistoryTable, TableVersion
from federation.history.record import standing
from federation.history.segments import SegmentCache

FOLLOW_INTERVAL_S: Final = 0.1  # the ingest commits every 250 ms; the pointer query costs 0.4 ms
TROUBLE_INTERVAL_S: Final = 1.0  # a store that is away is asked less often

_LOG = logging.getLogger(__name__)


class FollowerStatus(Struct, frozen=True):
    """What the follower has done since its start.

    `following`: the catalog has answered once, so that questions have an answer, be it that there is no table yet.
    `trouble`: None while the table can be followed; the last version stays in use meanwhile.
    """

    following: bool
    snapshot_id: int | None
    refreshes: int
    files: int
    segment_bytes: int
    segment_misses: int
    trouble: str | None


class HistoryFollower:
    """Keeps one version of the table and its segments; swaps the version as a whole."""

    def __init__(self, table: HistoryTable) -> None:
        self._table = table
        self._segments = SegmentCache(table.read)
        self._version: TableVersion | None = None
        self._followed = False
        self._refreshes = 0
        self._trouble: str | None = "the catalog was not asked yet"

    def refresh(self) -> bool:
        """Take up a newer version if there is one; say whether there was. Raises FieldlakeError, keeping the old one.

        1. pointer   unchanged: nothing to do.
        2. version   metadata, manifests, state of the ingest.
        3. segments  every new file is read before anybody is told of it.
        4. swap      one assignment; requests see the old version or the new one, whole.
        """
        pointer = self._table.pointer()  # Step 1.
        current = self._version
        if pointer is None or (current is not None and current.pointer == pointer):
            self._mark_followed()
            return False
        version = self._table.version(pointer)  # Step 2.
        if version is None:
            self._mark_followed()
            return False
        known = frozenset(file.key for file in current.files) if current is not None else frozenset()
        fresh = [file.key for file in version.files if file.key not in known]
        for key in fresh:  # Step 3.
            self._segments.get(key)
        self._version = version  # Step 4.
        self._refreshes += 1
        self._mark_followed()
        self._segments.keep_only(known.union(fresh))
        return True

    def run(self, stop: threading.Event) -> None:
        """Refresh until `stop` is set; trouble is logged when it begins and when it ends, and never ends the loop."""
        said: str | None = None
        while not stop.is_set():
            interval_s = FOLLOW_INTERVAL_S
            try:
                self.refresh()
            except FieldlakeError as error:
                self._trouble = str(error)
                interval_s = TROUBLE_INTERVAL_S
            saying = "trouble" if self._trouble is not None else "following"
            if saying != said:
                _LOG.info("history: %s: %s", saying, self._trouble or f"snapshot {self.status().snapshot_id}")
            said = saying
            stop.wait(interval_s)

    def resident(self, asset_id: str) -> bool:
        """Say whether `history` of this asset answers from memory; if not, call it where waiting is allowed."""
        files = self._version.files if self._version is not None else ()
        return all(self._segments.holds(file.key) for file in files if file.may_hold(asset_id))

    def history(self, asset_id: str, as_of: datetime | None) -> History | None:
        """Return the asset's record from the version in memory; None when the version holds no entry of the asset.

        Raises StoreUnavailableError before the catalog has answered, or when a file had to be read and could not be.
        """
        version = self._version
        if version is None:
            if self._followed:
                return None  # there is no table, or nothing in it yet
            raise StoreUnavailableError(f"the service history is not loaded yet: {self._trouble}")
        entries: list[Entry] = []
        for file in version.files:
            if file.may_hold(asset_id):
                entries.extend(self._segments.get(file.key).entries(asset_id))
        if not entries:
            return None
        complete = Completeness(version.snapshot_id, version.committed_at, version.origins)
        return History(asset_id, as_of, standing(entries, as_of), complete)

    def status(self) -> FollowerStatus:
        """Return counters for probes and metrics."""
        version = self._version
        return FollowerStatus(
            following=self._followed,
            snapshot_id=version.snapshot_id if version else None,
            refreshes=self._refreshes,
            files=len(version.files) if version else 0,
            segment_bytes=self._segments.bytes,
            segment_misses=self._segments.misses,
            trouble=self._trouble,
        )

    def _mark_followed(self) -> None:
        self._followed, self._trouble = True, None
