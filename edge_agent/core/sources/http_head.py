"""The head of an HTTP/1.1 request, as strictly as RFC 9112 lets a server be.

What two readers could understand differently is refused: bare line feeds, folded lines, white space before a colon,
a field that matters given twice, a length that is not plain digits, any transfer coding.
"""

import re
from typing import Final
from urllib.parse import unquote

from msgspec import Struct

from edge_agent.core.sources.producers import NUMBER_MAX, PRODUCER_CHARS_MAX, is_producer

HEAD_BYTES_MAX: Final = 8_192  # bytes; a request to us has some 300
HEAD_END: Final = b"\r\n\r\n"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,1024}) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t]*[!-~\x80-\xff])*)?)[ \t]*")
_SINGLE: Final = frozenset(
    {"host", "content-length", "content-type", "content-encoding", "authorization", "idempotency-key", "expect"}
)


class HttpRefusal(Exception):  # noqa: N818 - an answer on its way out, never an error that leaves the session
    """The request gets this answer instead of what it asked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Head(Struct, frozen=True):
    """A request without its body. Names of `fields` are in lower case."""

    method: str
    target: str
    fields: dict[str, str]
    keeps_alive: bool

    @property
    def length(self) -> int:
        """Bytes in the body. Raises HttpRefusal."""
        if "transfer-encoding" in self.fields:
            raise HttpRefusal(411, "no_length", "expected a Content-Length, found a Transfer-Encoding")
        value = self.fields.get("content-length")
        if value is None:
            raise HttpRefusal(411, "no_length", "expected a Content-Length")
        if not (value.isascii() and value.isdigit() and len(value) <= 16):
            raise HttpRefusal(400, "bad_request", "Content-Length: expected digits")
        return int(value)


class Key(Struct, frozen=True):
    """Whose events a request holds, and the number of the first."""

    producer: str
    first_number: int


def parse_head(data: bytes) -> Head:
    """Parse a head without the empty line that ends it. Raises HttpRefusal."""
    first, *lines = data.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        raise HttpRefusal(400, "bad_request", "expected a request line like `POST /v1/events/clicks HTTP/1.1`")
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise HttpRefusal(400, "bad_request", f"expected a header line, found {line[:64]!r}")
        name, value = found[1].decode("ascii").lower(), found[2].decode("utf-8", errors="replace")
        if name in fields and name in _SINGLE:
            raise HttpRefusal(400, "bad_request", f"{name}: expected once, found twice")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    wishes = {wish.strip().lower() for wish in fields.get("connection", "").split(",")}
    return Head(
        method=request[1].decode("ascii"),
        target=request[2].decode("ascii"),
        fields=fields,
        keeps_alive=request[3] == b"1" and "close" not in wishes,
    )


def parse_key(value: str) -> Key:
    """Parse an `Idempotency-Key`: `producer/number`, the producer percent-encoded where it is not plain ASCII.

    It may stand in double quotes, as the header's draft standard has it. Raises HttpRefusal.
    """
    text = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    name, slash, digits = text.rpartition("/")
    producer = unquote(name, errors="replace")
    is_number = digits.isascii() and digits.isdigit() and len(digits) <= 16 and int(digits) <= NUMBER_MAX
    if not slash or not is_number or not is_producer(producer):
        raise HttpRefusal(
            400,
            "bad_request",
            f"Idempotency-Key: expected producer/number, a name of up to {PRODUCER_CHARS_MAX} characters and the first "
            f"event's number, found {value[:80]!r}",
        )
    return Key(producer, int(digits))
