"""Seams of the ingest process: the log, the tables, and the faults that tests inject between two steps."""

from collections.abc import Iterable
from enum import Enum
from typing import Protocol

import pyarrow as pa
from msgspec import Struct

from contracts.contract import Contract
from lakehouse.layout import Layout
from lakehouse.state import Positions, TableState


class Message(Struct, frozen=True):
    """A message of the log; `origin` is the header that names its authenticated sender."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    origin: str | None = None

    @property
    def source(self) -> str:
        """topic/partition/offset"""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Log(Protocol):
    """The log as one ingest process uses it. Errors: LogUnavailableError."""

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Return for each topic a name that changes when the topic is created anew."""
        ...

    def read_all(self, topic: str) -> tuple[list[Message], Positions]:
        """Return everything up to the present end of a topic, and the positions after it."""
        ...

    def assign(self, topics: Iterable[str], positions: Positions) -> Positions:
        """Read all partitions of the topics from these positions on, from their start where none is given.

        A position that the log does not have (before its start, after its end) becomes its start. Returns where
        each partition is read from.
        """
        ...

    def ends(self, topics: Iterable[str]) -> Positions:
        """Return the position after the last message of every partition of the topics."""
        ...

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for them as long as the timeout."""
        ...

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the log last told of."""
        ...

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Send a message; it is safe only after `flush`."""
        ...

    def flush(self) -> None:
        """Return once the log holds everything that was published."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Written(Struct, frozen=True):
    """Files of a coming commit: the state file's location, and the data files.

    `written_s` is the monotonic time at which writing began. `files` and `merge`, which says what they stand for, are
    an adapter's own values.
    """

    state_location: str
    files: tuple[object, ...]
    written_s: float
    merge: object = None


class Recovered(Struct, frozen=True):
    """A table's newest state and the snapshot that carries it (None: there is no state yet)."""

    state: TableState
    snapshot_id: int | None


class LakeTable(Protocol):
    """One table. A commit is decided by one compare-and-set in its catalog."""

    @property
    def layout(self) -> Layout | None:
        """What its columns mean, as last seen; None when it takes rows as the contract's version names them."""
        ...

    def recover(self) -> Recovered:
        """Read the newest state in the ancestry of the current snapshot, an empty one when there is none."""
        ...

    def reload(self) -> None:
        """Take over a changed schema."""
        ...

    def write(self, rows: pa.Table | None, state: TableState) -> Written:
        """Store data and state files. Nothing refers to them yet."""
        ...

    def commit(self, written: Written) -> int:
        """Make the files current in one snapshot and return its id; repeating it changes nothing.

        Raises FencedError when the newest state is not the one this table object recovered or committed last,
        CommitConflictError and CommitOutcomeUnknownError.
        """
        ...


class Lake(Protocol):
    """All catalogs."""

    def open(self, contract: Contract) -> LakeTable:
        """Open the table of a contract; create it, or let it follow. Raises TableConflictError, CommitConflictError."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Step(Enum):
    """Points of the commit protocol at which a process may die; see `lakehouse.commit`."""

    PLANNED = "planned"
    FILES_WRITTEN = "files_written"
    QUARANTINE_COMMITTED = "quarantine_committed"
    TABLE_COMMITTED = "table_committed"
    TABLES_COMMITTED = "tables_committed"
    RECEIPTS_SENT = "receipts_sent"


class Fault(Protocol):
    """Called after every step; a test raises or waits in it."""

    def __call__(self, step: Step, table: str = "") -> None: ...


def no_fault(step: Step, table: str = "") -> None:
    """The fault of production: none."""
