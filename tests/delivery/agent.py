"""What the kit asks of an agent. To try another one, write an adapter with these two classes.

An adapter's `Agent` is one installation on one device, together with the producer of its events: a producer offers
events in order, keeps what was not acknowledged, and forgets what was. Its `Landing` stands where the lake is: it
takes what the agent publishes, settles repeats by whatever identity the agent gives, and writes receipts if the agent
knows any.
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from signal import Signals
from typing import Protocol

from msgspec import Struct


class Capability(Enum):
    """What an agent offers besides taking events and delivering them."""

    CLOCK = "clock"  # the kit can set the clock that the agent sees
    CONSENT = "consent"
    DISK_BYTES = "disk-bytes"  # it writes from one process, whose bytes the system counts
    DRAINS = "drains"  # it can be told to end when everything is receipted
    HOT_SWAP = "hot-swap"
    IDENTITY = "identity"
    LEDGER = "ledger"
    LIVE_FIRST = "live-first"
    PUSH = "push"
    QUOTA = "quota"
    RAW_RING = "raw-ring"
    RECEIPTS = "receipts"
    RENEWAL = "renewal"
    STATUS_BACKLOG = "status-backlog"
    STATUS_ERROR = "status-error"
    STATUS_FILE = "status-file"
    STATUS_LINK = "status-link"
    VALIDATION = "validation"


class Receipt(Enum):
    """A receipt that the kit asks a landing to write."""

    OWN = "what has landed"
    OLDER_EPOCH = "everything, of an older epoch"
    NEWER_EPOCH = "everything, of a newer epoch"
    OTHER_DEVICE = "everything, in the name of another device"
    OTHER_STREAM = "everything, of another stream"
    HALF = "the first half of what has landed"
    BEYOND = "what has landed and numbers never sent"
    GARBAGE = "no document at all"


class Place(Struct):
    """Where an agent is installed: its folder, its upstream, its papers. Scenarios change it before the first start."""

    folder: Path
    device: str
    host: str
    port: int
    ca_file: Path
    cert_file: Path
    key_file: Path
    durable_dir: Path  # where everything goes that must survive a restart
    enter: tuple[str, ...] = ()  # command that starts it in another mount namespace
    drains: bool = False
    fault: str = ""  # a wrong value that its configuration is to have


class Status(Struct, frozen=True):
    """What an agent says of itself; None is what it does not say."""

    backlog: int | None = None  # batches or messages that the lake is not known to hold
    link_up: bool | None = None
    last_error: str | None = None


class Landed(Struct, frozen=True):
    """One event at the lake. `identity` is (epoch, number) where the agent gives one."""

    number: int
    text: str | None
    value: int | None
    identity: tuple[int, int] | None = None


class Refusal(Struct, frozen=True):
    """An event that arrived as refused: the check that failed, and the event as it was."""

    check: str
    original: str


class Account(Struct, frozen=True):
    """`count` events of the kit's stream, in the range [first, end), met one fate."""

    fate: str
    first: int
    end: int
    count: int
    rule: str
    reason: str


class Landing(Protocol):
    """The lake's side. `faults` are breaches of the agent's own format or identity, in words."""

    device: str
    faults: list[str]

    def take(self, payload: bytes) -> None:
        """Take what the agent published."""
        ...

    def events(self) -> Sequence[Landed]:
        """Return every event that has landed, repeats by identity settled, in the order of landing."""
        ...

    def packets(self) -> int:
        """Return how many publishes of the kit's stream came, repeats among them."""
        ...

    def repeats(self) -> int:
        """Return how many of these were there before, by identity."""
        ...

    def receipt(self, kind: Receipt = Receipt.OWN) -> tuple[str, bytes] | None:
        """Return topic and payload of a receipt; None when the agent knows none."""
        ...

    def refusals(self) -> Sequence[Refusal]:
        """Return the events that arrived as refused."""
        ...

    def accounts(self) -> Sequence[Account]:
        """Return what the lake was told of the kit's stream."""
        ...

    def epoch(self) -> int | None:
        """Return the newest epoch seen."""
        ...


class Agent(Protocol):
    """One installation and its producer."""

    @property
    def landing(self) -> Landing:
        """The lake's side of this agent."""
        ...

    @property
    def pid(self) -> int:
        """Process id of the newest start."""
        ...

    def start(self) -> None:
        """Start it; do not wait for anything. The kit has offered an event before the first start."""
        ...

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        ...

    def wait(self, deadline_s: float) -> int | None:
        """Return its exit code, negative for a signal; None when it still runs."""
        ...

    def close(self) -> None:
        """End everything that is left of it and its producer."""
        ...

    def offer(self, events: Sequence[bytes]) -> None:
        """Have the producer offer events, in order, after those before; return at once."""
        ...

    def accepted(self) -> int:
        """Return how many events, from the first on, the agent has acknowledged to its producer."""
        ...

    def forget_accepted(self) -> None:
        """Make sure that acknowledged events are nowhere but with the agent. It is not running."""
        ...

    def status(self) -> Status:
        """Return what it says of itself."""
        ...

    def status_text(self) -> bytes | None:
        """Return its status file as it lies there; None before there is one. For `status-file`."""
        ...

    def log(self) -> str:
        """Return its log."""
        ...

    def durable_files(self) -> list[Path]:
        """Return the files that must survive a restart, those with events first, the newest of these foremost."""
        ...

    def forget_everything(self) -> None:
        """Remove its durable files, as for a device that is set up anew. It is not running."""
        ...

    def move_clock(self, by_s: int) -> None:
        """Set the clock that the agent sees, from now on. For `clock`."""
        ...

    def says_online(self, presence: bytes) -> bool:
        """Read the message that the agent, or its will, left on its state topic."""
        ...

    def sums(self) -> dict[str, int]:
        """Return how many events of the kit's stream met which fate, as the agent itself says. For `ledger`."""
        ...


class Maker(Protocol):
    """How to make agents of one kind."""

    name: str
    about: str  # what it is and how it is configured, for the published table
    capabilities: frozenset[Capability]

    def version(self) -> str:
        """Return the version that is tried."""
        ...

    def make(self, place: Place) -> Agent:
        """Install an agent; it is not started."""
        ...
