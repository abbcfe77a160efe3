"""Seams of the mirror: the log it follows, the tables it keeps, and the faults that tests inject between two steps."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

from msgspec import Struct

from lakehouse.mirror.kinds import RecordKind
from lakehouse.mirror.model import Key, Record, Scope, SnapshotKey

Positions = dict[int, int]
"""Partition of the changes topic -> offset of the next message to apply."""


class LogMessage(Struct, frozen=True, gc=False):
    """A message of the changes topic."""

    partition: int
    offset: int
    value: bytes


class ChangeLog(Protocol):
    """The changes topic, and the dead letters. Errors: LogUnavailableError."""

    def identity(self) -> str:
        """Return the topic's id, which is another one when the topic is created anew."""
        ...

    def seek(self, positions: Positions) -> Positions:
        """Read every partition from its position on, from its start where none is given or the log has not got it.

        Returns where each partition is read from.
        """
        ...

    def poll(self, messages_max: int, timeout_s: float) -> list[LogMessage]:
        """Return up to so many messages; waits for them as long as the timeout."""
        ...

    def lag(self, positions: Positions) -> int:
        """Return how many messages lie between the positions and the ends that the log last told of."""
        ...

    def refuse(self, letters: Collection[bytes]) -> None:
        """Write dead letters; returns once the log holds them."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Transaction(Protocol):
    """All of it takes effect together when its context ends without an error, nothing of it otherwise."""

    def positions(self, topic_id: str) -> Positions:
        """Keep every other writer out until the end, and return the positions of the topic with this id."""
        ...

    def move(self, topic_id: str, positions: Positions) -> None:
        """Set positions."""
        ...

    def swept(self) -> Mapping[Scope, int]:
        """Return, by scope, when its newest complete snapshot began, in us."""
        ...

    def read(self, kind: RecordKind, keys: Collection[Key]) -> dict[Key, Record]:
        """Return the records that are known."""
        ...

    def write(self, kind: RecordKind, records: Mapping[Key, Record]) -> None:
        """Replace records. Raises ValueRefusedError when one of them cannot be stored."""
        ...

    def mark(self, snapshot: SnapshotKey, records: Collection[str]) -> None:
        """Note that a snapshot that is not complete yet holds these records."""
        ...

    def end(self, snapshot: SnapshotKey, records: int) -> None:
        """Note how many different records a snapshot has that is not complete yet."""
        ...

    def sweep_if_complete(self, snapshot: SnapshotKey, kind: RecordKind) -> bool:
        """Once all records of a snapshot are marked, apply `merge.swept` to what was last seen before it began.

        Says whether that was now.
        """
        ...


class MirrorStore(Protocol):
    """The tables. Errors: StoreUnavailableError; after one raised at its end, a transaction may have taken effect."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a transaction."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class Step(Enum):
    """Points at which a process may die; see `lakehouse.mirror.follower`."""

    TAKEN = "taken"
    REFUSED = "refused"
    LOCKED = "locked"
    WRITTEN = "written"
    SWEPT = "swept"
    MOVED = "moved"
    COMMITTED = "committed"


class Fault(Protocol):
    """Called after every step; a test raises in it."""

    def __call__(self, step: Step) -> None: ...


def no_fault(step: Step) -> None:
    """The fault of production: none."""
