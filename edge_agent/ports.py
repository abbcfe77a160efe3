"""Seams between the agent's cores and the world: what a core may ask for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from edge_agent.core.sources.offers import Asked, Offered, Settled, SourceFailed
from edge_agent.core.updates.renewal import RenewalEvent
from edge_agent.core.uplink.link import LinkEvent

if TYPE_CHECKING:  # 7 MB that a device without a model does without
    import numpy as np
    from numpy.typing import NDArray

Put: TypeAlias = Callable[[Offered | Asked | SourceFailed], None]


class Scorer(Protocol):
    """A filter model that is ready to run."""

    def scores(self, rows: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """Return one score per row for exactly `chunk_rows` rows, shape (chunk_rows, inputs) -> (chunk_rows,)."""
        ...


class Disk(Protocol):
    """The spool's folder. Names are plain file names. Every method may raise OSError."""

    def names(self) -> list[str]:
        """Return the names of all files."""
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `offset`, all of them without a length."""
        ...

    def size(self, name: str) -> int:
        """Return a file's length in bytes."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file, which is created if need be. May be undone by a power cut until `sync`."""
        ...

    def sync(self, name: str) -> None:
        """Return once everything appended to the file, and its name, would survive a power cut."""
        ...

    def truncate(self, name: str, length: int) -> None:
        """Cut a file to a length."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in place of the file: after a crash the old or the new content is there, whole."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...

    def shred(self, name: str) -> None:
        """Overwrite a file where it lies, and remove it; both are durable then. One that is not there is fine."""
        ...

    def reserve(self, name: str, size_bytes: int) -> None:
        """Make a file that takes so much room; one of that size is fine."""
        ...

    def free_bytes(self) -> int | None:
        """Return how much more the disk can hold; None when it does not say."""
        ...


class Cipher(Protocol):
    """Seals blocks of the spool. What it adds to each is of one size."""

    @property
    def overhead_bytes(self) -> int:
        """How much longer a sealed block is."""
        ...

    def seal(self, data: bytes, label: bytes) -> bytes:
        """Return a block that opens under the same label only."""
        ...

    def open(self, sealed: bytes, label: bytes) -> bytes | None:
        """Return what was sealed; None when it is not that any more, or was sealed under another label."""
        ...


class Certificates(Protocol):
    """The device's certificate over time; it is told what happens and asks for what it needs."""

    @property
    def last_error(self) -> str:
        """Why the last renewal failed; empty after one that did not."""
        ...

    def next_due_ms(self) -> int | None:
        """Return when `tick` is due, Unix time in milliseconds; None when never."""
        ...

    def tick(self) -> None:
        """Time has passed."""
        ...

    def link_up(self) -> None:
        """The broker took the newest connection."""
        ...

    def link_refused(self) -> None:
        """The broker was there and did not take it."""
        ...

    def answered(self, document: bytes) -> None:
        """An answer to a request arrived."""
        ...

    def on(self, event: RenewalEvent) -> None:
        """Take what was put into the inbox."""
        ...


class Uplink(Protocol):
    """The way to the broker. What comes of a call is told through the inbox."""

    @property
    def link(self) -> int:
        """Number of the newest connection; events of older ones say nothing."""
        ...

    def connect(self, epoch: int) -> None:
        """Begin a connection; LinkUp or LinkDown follows."""
        ...

    def publish(self, batch: bytes) -> int | None:
        """Publish, and return the message id that Answered will name; None when the link has just gone."""
        ...

    def request_certificate(self, request: bytes) -> None:
        """Publish a request for the next certificate, if there is a link."""
        ...

    def drop(self) -> None:
        """Break the connection off, without a goodbye."""
        ...

    def close(self, epoch: int) -> None:
        """Say goodbye and end the connection."""
        ...


class Inbox(Protocol):
    """Where everything arrives that wakes the agent."""

    def take(self, wait_s: float) -> list[LinkEvent]:
        """Wait at most so long for the first event; return all that are there."""
        ...


class Source(Protocol):
    """Events in the order of the file. `at_end` is true once all were handed out and no more will come."""

    at_end: bool

    def read(self, events_max: int) -> list[bytes]:
        """Return the next events, one line of JSON each; fewer than asked for, or none, when there are no more yet."""
        ...

    def skip(self, events: int) -> int:
        """Pass over events; return how many there were to pass over."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class PushSource(Protocol):
    """A source whose producers hand events over: it puts `Offered` into the agent's inbox from a thread of its own.

    A producer is acknowledged only by what `settle` says. The source itself holds producers back when too many of their
    events are unanswered.
    """

    name: str
    trouble: str | None  # the last thing that went wrong, where it says something about the present

    def start(self) -> None:
        """Begin to take events."""
        ...

    def settle(self, ticket: int, settled: Settled) -> None:
        """Tell what became of an offer, once it is durable; any thread may."""
        ...

    def close(self) -> None:
        """Take no more; what is not settled stays with its producers."""
        ...
