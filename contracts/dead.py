"""Dead letters: what was refused, why, and the bytes themselves, so that it can be replayed after a fix."""

import msgspec
from msgspec import Struct

from contracts.errors import OperatorMustActError
from contracts.malformed import MALFORMED


class DeadLetter(Struct, frozen=True):
    """One refused message. `reason` is a short stable code, `detail` a sentence for a person."""

    source: str  # topic it came from, with partition and offset where there are some
    origin: str | None
    reason: str
    detail: str
    refused_at_ms: int
    original: bytes


def encode(letter: DeadLetter) -> bytes:
    """Return the JSON form; `original` is base64 in it."""
    return msgspec.json.encode(letter)


def decode(data: bytes) -> DeadLetter:
    """Parse the JSON form. Raises OperatorMustActError."""
    try:
        return msgspec.json.decode(data, type=DeadLetter)
    except MALFORMED as error:
        raise OperatorMustActError(f"dead letter: expected its JSON form, found {data[:80]!r}: {error}") from error
