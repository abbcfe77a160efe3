"""Rows of immutable data files, kept by asset in memory up to a bound. Thread-safe."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from federation.history.model import Entry

ASSET_COLUMN: Final = "asset_id"
ENTRY_COLUMNS: Final = Entry.__struct_fields__
SEGMENT_BYTES_MAX: Final = (
    96 * 1024 * 1024
)  # bytes of rows and indexes; with interpreter and libraries it stays below 250 MB
INDEX_BYTES_PER_ASSET: Final = 250  # bytes: the name, two numbers, a pair and a slot of the index


class Segment:
    """The rows of one data file, sorted by asset, in one contiguous table.

    A record is spread over as many files as were committed since the last compaction, most of which do not hold the
    asset: saying so must cost next to nothing, hence an index and no search.
    """

    def __init__(self, rows: pa.Table) -> None:
        """Take rows with `asset_id` and the columns of an `Entry`, in any order."""
        rows = rows.sort_by(ASSET_COLUMN).combine_chunks()
        self._entries = rows.select(list(ENTRY_COLUMNS))
        runs = pc.run_end_encode(rows.column(ASSET_COLUMN).combine_chunks())
        ends = runs.run_ends.to_pylist()
        self._places = dict(zip(runs.values.to_pylist(), zip([0, *ends], ends, strict=False), strict=True))
        self.bytes = rows.nbytes + INDEX_BYTES_PER_ASSET * len(self._places)

    def entries(self, asset_id: str) -> list[Entry]:
        """Return an asset's entries, in no particular order."""
        place = self._places.get(asset_id)
        if place is None:
            return []
        first, end = place
        columns = self._entries.slice(first, end - first).to_pydict()
        return [Entry(*values) for values in zip(*columns.values(), strict=True)]


class SegmentCache:
    """The most recently used segments by file key; the least used leave when the bound is passed."""

    def __init__(self, load: Callable[[str], Segment], bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        self._load = load
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._kept: OrderedDict[str, Segment] = OrderedDict()
        self.bytes = 0
        self.misses = 0

    def holds(self, key: str) -> bool:
        """Say whether `get` would answer from memory."""
        with self._lock:
            return key in self._kept

    def get(self, key: str) -> Segment:
        """Return a file's segment, reading the file when it is not kept; raises what `load` raises."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
            self.misses += 1
        segment = self._load(key)  # outside the lock: a slow store must not hold requests that need no store
        with self._lock:
            if key not in self._kept:
                self._kept[key] = segment
                self.bytes += segment.bytes
            while self.bytes > self._bytes_max and len(self._kept) > 1:
                _, evicted = self._kept.popitem(last=False)
                self.bytes -= evicted.bytes
        return segment

    def keep_only(self, keys: frozenset[str]) -> None:
        """Drop the segments of files that no snapshot in use names."""
        with self._lock:
            for key in [kept for kept in self._kept if kept not in keys]:
                self.bytes -= self._kept.pop(key).bytes
