"""What a conversation with one producer asks of the connection that carries it. No session touches a socket."""

from typing import Protocol, TypeAlias

from msgspec import Struct

from edge_agent.core.sources.offers import Settled, Wish

OFFER_EVENTS_MAX = 4_000  # events; as many as one flush may have


class Offer(Struct, frozen=True):
    """Hand these events to the agent; its answer comes back by `settled`, in the order of the offers."""

    contract: str
    lines: tuple[bytes, ...]
    producer: str | None
    first_number: int | None
    size_bytes: int


class Ask(Struct, frozen=True):
    """Pass on a person's decision, or the question for it; the answer comes back as that of an offer."""

    person: str
    wish: Wish


class Reply(Struct, frozen=True):
    """Send these bytes to the producer."""

    data: bytes


class Close(Struct, frozen=True):
    """End the connection once everything has been sent."""


Step: TypeAlias = Offer | Ask | Reply | Close


class Session(Protocol):
    """One conversation. Every method returns what to do, in order.

    One that `reserves` asks for room before it takes events in and answers where there is none; another is not read
    while there is none.
    """

    @property
    def reserves(self) -> bool:
        """Whether it is of the first kind."""
        ...

    @property
    def wants_data(self) -> bool:
        """Whether further bytes may be given to it; otherwise they wait where they are."""
        ...

    @property
    def patience_s(self) -> float | None:
        """How long the producer may take over the present `phase`, None: as long as it likes."""
        ...

    @property
    def phase(self) -> int:
        """Grows whenever the patience begins anew."""
        ...

    def receive(self, data: bytes) -> list[Step]:
        """Take in bytes."""
        ...

    def ended(self) -> list[Step]:
        """The producer will send no more, and may still listen."""
        ...

    def settled(self, settled: Settled) -> list[Step]:
        """Take in the agent's answer to the oldest open offer."""
        ...

    def refuse(self, code: str, reason: str) -> list[Step]:
        """End the conversation for a reason outside of it."""
        ...
