"""The HTTP interface for apps on the device: `POST /v1/events/{contract}`.

| request header     | meaning                                                                                    |
| ------------------ | ------------------------------------------------------------------------------------------ |
| `Host`             | a loopback name and our port; anything else is a page in a browser that was led here       |
| `Authorization`    | `Bearer` and the token of the source's token file                                          |
| `Content-Type`     | `application/x-ndjson`, `application/jsonl`: lines; `application/json`: array, or one event |
| `Content-Encoding` | none, or `gzip`                                                                            |
| `Content-Length`   | at most 1 MiB, also after unpacking; at most 4,000 events                                  |
| `Idempotency-Key`  | `producer/number`, number of the first event: the same numbers again double no event       |

`200 {"accepted":2,"duplicate":1,"next":45}` comes when every event is durable, or a rule dropped it, or it is in
quarantine because it does not follow its contract. A request without events asks up to where a producer is known.
`202` with `"held":3,"held_from":42` beside these fields says that some events wait in memory until their persons have
decided: those from number 42 on that were not taken come again if the agent was started anew.
`POST /v1/consent` passes on what a person has decided, see `core.sources.consent_lines`.
Everything else is `{"error":CODE,"message":TEXT,"next":N}`; after 408, 429, 503 and a broken connection send the same
again with the same key.
"""

import hmac
import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from contracts.malformed import MALFORMED
from edge_agent.core.sources import consent_lines
from edge_agent.core.sources.http_head import HEAD_BYTES_MAX, HEAD_END, Head, HttpRefusal, Key, parse_head, parse_key
from edge_agent.core.sources.line_splitting import KEPT_BYTES, LineSplitter
from edge_agent.core.sources.offers import BUSY_CODE, Outcome, Settled
from edge_agent.core.sources.producers import FORGOTTEN, GAP
from edge_agent.core.sources.session import OFFER_EVENTS_MAX, Ask, Close, Offer, Reply, Step

BODY_BYTES_MAX: Final = 1_048_576  # bytes, sent and unpacked; 20 connections may hold twice this while one waits
IDLE_S: Final = 30.0  # s; a connection kept alive without a request
HEAD_S: Final = 10.0  # s; from a request's first byte to the end of its head
BODY_S: Final = 30.0  # s; for a body of 1 MiB from the same machine
ANSWER_S: Final = 30.0  # s; the agent writes within 200 ms; a disk that is full holds it up for longer
RETRY_AFTER_S: Final = 1  # s; told to a client that is to come again

PATH: Final = "/v1/events/"
CONSENT_PATH: Final = "/v1/consent"
LINES: Final = frozenset({"application/x-ndjson", "application/jsonl"})
JSON: Final = "application/json"
TOO_BUSY: Final = "too_much_unanswered"

_STATUS_OF: Final = {GAP: 409, FORGOTTEN: 409, "timeout": 408, TOO_BUSY: 429, BUSY_CODE: 503}


class Access(Struct, frozen=True):
    """Who may send what: bearer token, `Host` values, ids of contracts."""

    token: bytes
    hosts: frozenset[str]
    contracts: frozenset[str]


class HttpSession:
    """One connection's requests, one after the other, see the module's text. Implements `session.Session`.

    `reserve` asks for room for a body of so many bytes; what it grants is free again once the offer is settled.
    """

    reserves: Final = True

    def __init__(self, access: Access, reserve: Callable[[int], bool]) -> None:
        self._access = access
        self._reserve = reserve
        self._buffer = bytearray()
        self._head: Head | None = None
        self._key: Key | None = None
        self._length = 0
        self._waiting = self._closed = self._ending = False
        self.phase = 0

    @property
    def wants_data(self) -> bool:
        return not self._closed and not self._waiting

    @property
    def patience_s(self) -> float | None:
        if self._waiting:
            return ANSWER_S
        if self._head is not None:
            return BODY_S
        return HEAD_S if self._buffer else IDLE_S

    def receive(self, data: bytes) -> list[Step]:
        if self._closed:
            return []
        if not self._buffer and self._head is None:
            self.phase += 1
        self._buffer += data
        return self._advance()

    def ended(self) -> list[Step]:
        self._ending = True
        return [] if self._waiting else self._close()

    def settled(self, settled: Settled) -> list[Step]:
        if self._closed:
            return []
        self._waiting = False
        if settled.outcome is not Outcome.TAKEN:
            status = 503 if settled.outcome is Outcome.BUSY else _STATUS_OF.get(settled.code, 400)
            return self._answer(status, _error(settled.code, settled.reason, settled.next_number))
        if settled.decided is not None:
            steps = self._answer(200, consent_lines.answer_of(settled.decided))
        else:
            steps = self._answer(202 if settled.held else 200, _taken(settled))
        return steps if isinstance(steps[-1], Close) else steps + self._advance()

    def refuse(self, code: str, reason: str) -> list[Step]:
        if self._closed or (code == "timeout" and not self._buffer and self._head is None):
            return self._close()
        if self._waiting:
            code, reason = BUSY_CODE, "not durable yet, and may still become so: send it again with the same key"
        return self._fail(HttpRefusal(_STATUS_OF.get(code, 503), code, reason))

    def _advance(self) -> list[Step]:
        """Go on as far as the bytes reach: at most to the end of one request."""
        steps: list[Step] = []
        try:
            if self._head is None:
                steps += self._read_head()
            if self._head is not None and len(self._buffer) >= self._length:
                body = bytes(self._buffer[: self._length])
                del self._buffer[: self._length]
                steps.append(self._offer(body))
                self._waiting = True
                self.phase += 1
        except HttpRefusal as refusal:
            return [*steps, *self._fail(refusal)]
        return steps

    def _read_head(self) -> list[Step]:
        end = self._buffer.find(HEAD_END, 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= HEAD_BYTES_MAX:
                raise HttpRefusal(431, "head_too_large", f"expected a head of at most {HEAD_BYTES_MAX} bytes")
            return []
        head = parse_head(bytes(self._buffer[:end]))
        self._check(head)
        self._length = head.length
        if self._length > BODY_BYTES_MAX:
            raise HttpRefusal(413, "too_large", f"expected at most {BODY_BYTES_MAX} bytes, found {self._length}")
        packed = head.fields.get("content-encoding", "identity") != "identity"
        if not self._reserve(BODY_BYTES_MAX if packed else self._length):
            raise HttpRefusal(429, TOO_BUSY, "too many events wait to become durable: send it again later")
        del self._buffer[: end + len(HEAD_END)]
        self._head = head
        self.phase += 1
        return [Reply(b"HTTP/1.1 100 Continue\r\n\r\n")] if "expect" in head.fields else []

    def _check(self, head: Head) -> None:
        """Raise HttpRefusal when a request may not be made, or not like this."""
        fields = head.fields
        if fields.get("host", "").lower() not in self._access.hosts:
            raise HttpRefusal(421, "misdirected", "Host: expected a loopback name and this port")
        scheme, _, token = fields.get("authorization", "").partition(" ")
        given = token.strip().encode()
        # Compared in any case: how long the answer takes must not depend on what was wrong.
        if not hmac.compare_digest(given, self._access.token) or scheme.lower() != "bearer":
            raise HttpRefusal(401, "unauthorised", "Authorization: expected Bearer and the token of the token file")
        contract = head.target.removeprefix(PATH)
        asks = head.target == CONSENT_PATH
        if not asks and (contract == head.target or contract not in self._access.contracts):
            known = ", ".join(sorted(self._access.contracts))
            raise HttpRefusal(404, "not_found", f"expected {PATH} and one of {known}")
        if head.method != "POST":
            raise HttpRefusal(405, "method", f"expected POST, found {head.method}")
        if _media_type(head) not in ({JSON} if asks else {*LINES, JSON}):
            raise HttpRefusal(415, "media_type", "Content-Type: expected application/x-ndjson or application/json")
        if fields.get("content-encoding", "identity").lower() not in ("identity", "gzip"):
            raise HttpRefusal(415, "media_type", "Content-Encoding: expected none, or gzip")
        if fields.get("expect", "100-continue").lower() != "100-continue":
            raise HttpRefusal(417, "expectation", "Expect: expected none, or 100-continue")
        self._key = parse_key(fields["idempotency-key"]) if "idempotency-key" in fields else None

    def _offer(self, body: bytes) -> Offer | Ask:
        assert self._head is not None
        if self._head.fields.get("content-encoding", "identity").lower() == "gzip":
            body = _inflate(body)
        if self._head.target == CONSENT_PATH:
            return _asked(body)
        lines = _lines(body) if _media_type(self._head) in LINES else _array(body)
        if len(lines) > OFFER_EVENTS_MAX:
            raise HttpRefusal(413, "too_large", f"expected at most {OFFER_EVENTS_MAX} events, found {len(lines)}")
        contract, key = self._head.target.removeprefix(PATH), self._key
        producer, first = (key.producer, key.first_number) if key is not None else (None, None)
        return Offer(contract, tuple(lines), producer, first, sum(map(len, lines)))

    def _fail(self, refusal: HttpRefusal) -> list[Step]:
        """Answer and end: what follows in the connection may be the body of what was refused."""
        self._ending = True
        return self._answer(refusal.status, _error(refusal.code, refusal.message, None))

    def _answer(self, status: int, body: Mapping[str, int | str | None]) -> list[Step]:
        last = self._ending or self._head is None or not self._head.keeps_alive
        data = msgspec.json.encode(body) + b"\n"
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            f"Connection: {'close' if last else 'keep-alive'}",
        ]
        if status in (429, 503):
            lines.append(f"Retry-After: {RETRY_AFTER_S}")
        if status == 401:
            lines.append("WWW-Authenticate: Bearer")
        if status == 405:
            lines.append("Allow: POST")
        self._head, self._key, self._waiting = None, None, False
        self.phase += 1
        reply = Reply("\r\n".join(lines).encode("ascii") + HEAD_END + data)
        return [reply, *(self._close() if last else [])]

    def _close(self) -> list[Step]:
        if self._closed:
            return []
        self._closed = True
        self._buffer.clear()
        return [Close()]


def _media_type(head: Head) -> str:
    return head.fields.get("content-type", "").partition(";")[0].strip().lower()


def _error(code: str, message: str, known: int | None) -> dict[str, int | str | None]:
    return {"error": code, "message": message, "next": known}


def _taken(settled: Settled) -> dict[str, int | str | None]:
    body: dict[str, int | str | None] = {
        "accepted": settled.accepted,
        "duplicate": settled.duplicate,
        "next": settled.next_number,
    }
    held: dict[str, int | str | None] = {"held": settled.held} if settled.held else {}
    return body | held | ({"held_from": settled.held_from} if settled.held_from is not None else {})


def _asked(body: bytes) -> Ask:
    """Parse what is said of a person's consent. Raises HttpRefusal."""
    try:
        return consent_lines.ask_of(body)
    except MALFORMED as error:
        expected = 'expected a body like {"consent":"grant","person":"p-1"}'
        raise HttpRefusal(400, "bad_request", f"{expected}: {error}") from error


def _inflate(body: bytes) -> bytes:
    """Unpack one gzip member. Raises HttpRefusal."""
    packed = zlib.decompressobj(wbits=31)
    try:
        data = packed.decompress(body, BODY_BYTES_MAX + 1)
    except zlib.error as error:
        raise HttpRefusal(400, "bad_request", f"expected a gzip body: {error}") from error
    if len(data) > BODY_BYTES_MAX:
        raise HttpRefusal(413, "too_large", f"expected at most {BODY_BYTES_MAX} bytes after unpacking")
    if not packed.eof or packed.unused_data:
        raise HttpRefusal(400, "bad_request", "expected a gzip body of one whole member")
    return data


def _lines(body: bytes) -> list[bytes]:
    splitter = LineSplitter()
    return [*splitter.feed(body), *splitter.finish()] if body else []


def _array(body: bytes) -> list[bytes]:
    """Return each element of an array as it was written, or the one object. Raises HttpRefusal."""
    try:
        if body.lstrip(b" \t\r\n").startswith(b"{"):
            msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            return [body[:KEPT_BYTES]]
        return [bytes(event)[:KEPT_BYTES] for event in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except MALFORMED as error:
        raise HttpRefusal(400, "bad_request", f"expected a JSON array of events, or one event: {error}") from error
