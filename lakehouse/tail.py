"""The newest files of a table, which its writer merges in the very commits that add more of them.

Files are counted like digits to the base FAN_IN: the commit that would add the eighth file of a level writes one file
with the rows of all eight instead, which counts on the next level; what leaves the last level is left to maintenance.
So every row is written once more per level, a table has a few files however fast it is committed to, and nobody has to
read the small ones, or to race their writer for them.

The rows of the files are kept in memory for that, and only while no other writer has touched the table: whoever cannot
know that every file of the tail is still live clears it, and adds a file as if it were the first.
"""

from typing import Final

import pyarrow as pa
from msgspec import Struct
from pyiceberg.manifest import DataFile

FAN_IN: Final = 8  # files that become one
LEVELS: Final = 2  # so 64 commits make a file that the writer leaves behind
COMMITS: Final = FAN_IN**LEVELS  # commits after which the writer has done with a file
# Bytes of rows kept. At 1,000 events/s 64 commits are some MB; a backlog's rounds are larger than that each, make
# large files by themselves and are not worth merging again.
BYTES_MAX: Final = 33_554_432


class Kept(Struct, frozen=True):
    """A file of the tail, the snapshot that added it, and its rows."""

    file: DataFile
    snapshot_id: int
    rows: tuple[pa.Table, ...]
    size_bytes: int


class Merge(Struct, frozen=True):
    """What one commit writes: one file of all `rows`, its own last, instead of the files that it `replaces`.

    The file counts on `level`; from LEVELS on it is not kept.
    """

    rows: tuple[pa.Table, ...]
    replaces: tuple[Kept, ...]
    level: int


class Tail:
    """The files of one table by level, oldest first."""

    def __init__(self) -> None:
        self._levels: tuple[list[Kept], ...] = tuple([] for _ in range(LEVELS))

    def plan(self, rows: pa.Table) -> Merge:
        """Return what to write for a commit that adds `rows`. Changes nothing: the commit may fail."""
        merged: tuple[pa.Table, ...] = (rows,)
        replaces: list[Kept] = []
        level = 0
        while level < LEVELS and len(self._levels[level]) >= FAN_IN - 1:
            replaces.extend(self._levels[level])
            merged = (*(table for kept in self._levels[level] for table in kept.rows), *merged)
            level += 1
        return Merge(merged, tuple(replaces), level)

    def committed(self, merge: Merge, file: DataFile, snapshot_id: int) -> None:
        """Take note of a committed plan: what it replaced is gone, its file is kept unless it is complete or large."""
        for emptied in self._levels[: merge.level]:
            emptied.clear()
        if merge.level < LEVELS:
            size_bytes = sum(kept.size_bytes for kept in merge.replaces) + merge.rows[-1].nbytes
            self._levels[merge.level].append(Kept(file, snapshot_id, merge.rows, size_bytes))
        if sum(kept.size_bytes for level in self._levels for kept in level) > BYTES_MAX:
            self.clear()

    def clear(self) -> None:
        """Leave all files to maintenance."""
        for level in self._levels:
            level.clear()
