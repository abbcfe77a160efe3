"""A subject's partial matches as bytes: one byte of version, then MessagePack.

A reader of a newer version translates older ones; a version it does not know is refused, because guessing would forget
partial matches without a word.
"""

from typing import Final

import msgspec

from flink_jobs.triggers.core.partials import Matches, Partial
from flink_jobs.triggers.errors import StateFormatError

VERSION: Final = 1


def encode(matches: Matches) -> bytes:
    """Return the bytes of a subject's partial matches."""
    return bytes((VERSION,)) + msgspec.msgpack.encode(matches)


def decode(data: bytes) -> Matches:
    """Return the partial matches that the bytes hold. Raises StateFormatError."""
    if not data or data[0] != VERSION:
        found = f"version {data[0]}" if data else "no bytes"
        raise StateFormatError(
            f"trigger state: expected version {VERSION}, found {found}: start the job version that wrote it, or start "
            "without its checkpoint (partial matches are then lost)"
        )
    try:
        return msgspec.msgpack.decode(memoryview(data)[1:], type=dict[str, Partial])
    except msgspec.DecodeError as error:
        raise StateFormatError(f"trigger state: expected the form of version {VERSION}: {error}") from error
