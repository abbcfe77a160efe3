"""A table's state from its files, for those who write the table and those who read it."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec.structs import replace
from pyiceberg.io import FileIO

from lakehouse import streams
from lakehouse.state import Kept, TableState, assembled, committed_after, decode

READS_AT_ONCE: Final = 8  # files of a state; a start waits for the store, file by file


class StateReader:
    """Reads the states of one table, as its snapshots follow each other. Errors: StateError, and those of the store."""

    def __init__(self) -> None:
        self._kept: Kept | None = None

    def read(self, io: FileIO, location: str) -> Kept:
        """Return the state whose root lies there; of one that follows the last one, only the root is read.

        What was returned before is not used again.
        """
        if self._kept is not None and self._kept.location == location:
            return self._kept
        root = decode(_read(io, (location,))[0], location)
        after = committed_after(self._kept, root, location) if self._kept is not None else None
        self._kept = after if after is not None else _whole(io, root, location)
        return self._kept


class SharedStates:
    """What both halves of a worker read: at a start they want the same states at the same time.

    A state that one has read is kept until the other takes it, or until a newer one of the table is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: dict[str, threading.Lock] = {}
        self._last: dict[str, Kept] = {}

    def read(self, io: FileIO, table: str, location: str) -> Kept:
        """Return the state of a table whose root lies there. Errors: StateError, and those of the store."""
        with self._lock:
            reading = self._reading.setdefault(table, threading.Lock())
        with reading:  # of this table only: a store that does not answer keeps nobody else waiting
            found = self._last.pop(table, None)
            if found is None or found.location != location:
                found = StateReader().read(io, location)
                self._last[table] = replace(found, streams=found.streams.copy())
            return found


def files_of(root: TableState) -> tuple[str, ...]:
    """Return the locations of all files that a state needs besides its root."""
    return (*root.parts, *root.roots)


def _whole(io: FileIO, root: TableState, location: str) -> Kept:
    found = _read(io, files_of(root))
    parts = [streams.decode(data, at) for data, at in zip(found, root.parts, strict=False)]
    roots = [decode(data, at) for data, at in zip(found[len(parts) :], root.roots, strict=True)]
    return assembled(root, location, parts, roots)


def _read(io: FileIO, locations: Sequence[str]) -> list[bytes]:
    def read(location: str) -> bytes:
        with io.new_input(location).open() as stream:
            return bytes(stream.read())

    if len(locations) < 2:
        return [read(location) for location in locations]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return list(pool.map(read, locations))
