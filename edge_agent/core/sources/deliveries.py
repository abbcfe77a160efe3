"""Messages of a broker to offers, and the agent's answers to acknowledgements of messages.

Messages gather while earlier ones are on their way to the disk, and go as one round: one offer per contract and
producer, whatever the sensors' interleaving. A message is acknowledged when all offers that hold one of its events are
taken, and in the order in which messages came.

A broker that did not hear an acknowledgement sends the message again. Nothing in the message tells it from another:
packet identifiers are used again, and the DUP flag says nothing of what a sensor sent twice. So an event is recognised
by a number within it, see `config.Subscription`; events without one are taken as often as they come.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from contracts.malformed import MALFORMED
from edge_agent.core.sources.line_splitting import LineSplitter
from edge_agent.core.sources.offers import Outcome, Settled
from edge_agent.core.sources.producers import NUMBER_MAX, is_producer
from edge_agent.core.sources.session import OFFER_EVENTS_MAX

DIGEST_BYTES: Final = 24  # bytes; as hexadecimal 48 of the 64 characters that a producer's name may have


class Numbering:
    """Reads whose event a line is and which number it has, from fields of the event."""

    def __init__(self, number_field: str, producer_field: str | None) -> None:
        fields: list[Any] = [("number", Annotated[int, Meta(ge=0, le=NUMBER_MAX)])]
        names = {"number": number_field}
        if producer_field is not None:
            fields.append(("producer", str | int))
            names["producer"] = producer_field
        self._has_producer = producer_field is not None
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            msgspec.defstruct("Numbered", fields, rename=names)
        )

    def read(self, topic: str, line: bytes) -> tuple[str, int] | None:
        """Return producer and number, None when the line has none."""
        try:
            found = self._decoder.decode(line)
        except MALFORMED:
            return None
        name = f"{topic} {found.producer}" if self._has_producer else topic
        if not is_producer(name):
            name = blake2b(name.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
        return name, found.number


class Message(Struct, frozen=True):
    """A message as it came; `handle` is what an acknowledgement names."""

    handle: int
    topic: str
    contract: str
    payload: bytes
    numbering: Numbering | None = None


class Part(Struct):
    """Events for one offer; `handles` are the messages that they came with."""

    contract: str
    producer: str | None
    first_number: int | None
    lines: list[bytes]
    handles: set[int]


class Round(Struct):
    """Offers that are under way together. `answers` has one place per part."""

    handles: list[int]
    parts: list[Part]
    answers: list[Settled | None]

    def is_done(self) -> bool:
        """Say whether every part is answered."""
        return all(answer is not None for answer in self.answers)

    def taken(self) -> list[int]:
        """Return the messages to acknowledge: those of which no event has to come again."""
        again: set[int] = set()
        for part, answer in zip(self.parts, self.answers, strict=True):
            if answer is None or answer.outcome is Outcome.BUSY:
                again |= part.handles
        return [handle for handle in self.handles if handle not in again]


def round_of(messages: Sequence[Message]) -> Round:
    """Return what to offer for these messages."""
    parts: list[Part] = []
    last: dict[tuple[str, str | None], Part] = {}
    for message in messages:
        for producer, number, line in _events(message):
            part = last.get((message.contract, producer))
            if part is None or len(part.lines) == OFFER_EVENTS_MAX or not _follows(part, number):
                part = Part(message.contract, producer, number, [], set())
                parts.append(part)
                last[message.contract, producer] = part
            part.lines.append(line)
            part.handles.add(message.handle)
    return Round([message.handle for message in messages], parts, [None] * len(parts))


def _events(message: Message) -> list[tuple[str | None, int | None, bytes]]:
    """Return producer, number and line of each event; a message without a byte is an event too, and no good one."""
    splitter = LineSplitter()
    lines = [*splitter.feed(message.payload), *splitter.finish()] or [b""]
    if message.numbering is None:
        return [(None, None, line) for line in lines]
    found = [message.numbering.read(message.topic, line) for line in lines]
    return [(*(one or (None, None)), line) for one, line in zip(found, lines, strict=True)]


def _follows(part: Part, number: int | None) -> bool:
    return part.first_number is None or number == part.first_number + len(part.lines)
