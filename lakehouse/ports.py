"""Seams of the ingest workers: the log, the tables, and the faults that tests inject between two steps."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Protocol

import pyarrow as pa
from msgspec import Struct

from contracts.contract import Contract
from lakehouse.handover import DataFileForm
from lakehouse.layout import Layout
from lakehouse.positions import Positions
from lakehouse.state import Kept, Next


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


class Follower(Protocol):
    """Reads whole topics by positions of its own. Errors: LogUnavailableError."""

    def rewind(self, positions: Positions | None = None) -> Positions:
        """Read on from these positions; without them from the present end. Returns where each partition is read from.

        A position that the log does not have (before its start, after its end) becomes its start.
        """
        ...

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        ...

    def catch_up(self) -> list[Message]:
        """Return everything up to the present end."""
        ...

    def ends(self) -> Positions:
        """Return the position after the last message of every partition."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Share(Protocol):
    """This worker's share of some topics' partitions, which a group deals out anew whenever workers come or go.

    Errors: LogUnavailableError.
    """

    def dealt(self) -> frozenset[str] | None:
        """Return the partitions of a new share, once; None while it is the same. Nothing is read before `begin`."""
        ...

    def begin(self, positions: Positions) -> Positions:
        """Read the share from these positions, from its start where none is given; see `Follower.rewind`."""
        ...

    def poll(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for the first as long as the timeout."""
        ...

    def fill(self, messages_max: int, timeout_s: float) -> list[Message]:
        """Return up to so many messages; waits for all of them as long as the timeout."""
        ...

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the log last told of."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Publisher(Protocol):
    """Writes to the log. Errors: LogUnavailableError."""

    def publish(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        partition: int | None = None,
        on_offset: Callable[[int], None] | None = None,
    ) -> None:
        """Send a message; it is safe only after `flush`, which has told its offset by then."""
        ...

    def flush(self) -> None:
        """Return once the log holds everything that was published."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Log(Protocol):
    """The log as one worker uses it; each role opens its own clients, which are of one thread each."""

    def identities(self, topics: Iterable[str]) -> dict[str, str]:
        """Return for each topic a name that changes when the topic is created anew. Raises LogUnavailableError."""
        ...

    def follow(self, topic: str) -> Follower:
        """Return a reader of a whole topic."""
        ...

    def share(self, group: str, topics: Iterable[str], in_rounds: bool = False) -> Share:
        """Join a group. `in_rounds`: messages are taken many at once, so one may come a little later for that."""
        ...

    def publisher(self) -> Publisher:
        """Return a writer."""
        ...


class Recovered(Struct, frozen=True):
    """A table's newest state and the snapshot that carries it (None: there is no state yet)."""

    kept: Kept
    snapshot_id: int | None


class LakeTable(Protocol):
    """One table, used by one thread. A commit is decided by one compare-and-set in its catalog."""

    @property
    def layout(self) -> Layout | None:
        """What its columns mean, as last seen; None when it takes rows as the contract's version names them."""
        ...

    def recover(self) -> Recovered:
        """Read the newest state in the ancestry of the current snapshot, an empty one when there is none."""
        ...

    def write(self, rows: pa.Table) -> tuple[DataFileForm, ...]:
        """Store rows as data files. Nothing refers to them yet. Raises StoreUnavailableError."""
        ...

    def store(self, state: Next) -> tuple[Next, str]:
        """Store the files of a state; return it as it names them, and its root's location. Nothing refers to it yet."""
        ...

    def commit(self, files: Sequence[DataFileForm], location: str) -> int:
        """Make data files and a state current in one snapshot and return its id; repeating it changes nothing.

        Raises StateMovedError when the newest state is not the one this table object recovered or committed last,
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
    """Points of the protocols at which a process may die; see `lakehouse.writer` and `lakehouse.committer`."""

    PLANNED = "planned"
    FILES_WRITTEN = "files_written"
    QUARANTINE_HANDED_OVER = "quarantine_handed_over"
    HANDED_OVER = "handed_over"
    SETTLED = "settled"
    STATE_WRITTEN = "state_written"
    COMMITTED = "committed"
    RECEIPTS_SENT = "receipts_sent"
    ANSWERED = "answered"


class Fault(Protocol):
    """Called after every step; a test raises in it."""

    def __call__(self, step: Step, table: str = "") -> None: ...


def no_fault(step: Step, table: str = "") -> None:
    """The fault of production: none."""
