"""What an app on the device does to hand its events over; `fieldlake edge send` is one, with the lines of a file.

The number of an event is that of its line. The agent says up to where it has them, so a file that was interrupted, by
either side, goes on there.
"""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from msgspec import Struct

from edge_agent.adapters.secret_files import read_secret
from edge_agent.adapters.source_files import open_source
from edge_agent.errors import HandoverError, RefusedError

CHUNK_EVENTS: Final = 1_000  # events handed over at once; a quarter of what one request or flush may have
CHUNK_BYTES: Final = 786_432  # bytes of these, less than a request's 1 MiB by more than one event
CHUNKS_OPEN: Final = 4  # chunks sent and not acknowledged on a socket: one flush is written while the next gathers
ANSWER_S: Final = 60.0  # s; the agent itself answers within 30
TRIES_MAX: Final = 30  # times in a row without progress
PAUSE_S: Final = 1.0  # s between two tries
HEAD_BYTES: Final = 65_536  # bytes at a file's beginning that tell it from another of its name

_HELD: Final = "events wait in memory until their persons have decided: see `fieldlake edge consent`"
_AGAIN: Final = frozenset({408, 429, 503})


class Handover(Protocol):
    """A connection to an agent for the events of one producer, of whom it has all below `known`.

    Raises HandoverError when the same may be tried again on another connection, RefusedError when that cannot help.
    """

    known: int

    def send(self, lines: list[bytes]) -> int:
        """Hand over the next events; return the number below which all are taken."""
        ...

    def finish(self) -> int:
        """Wait for what is open and return the same."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Sent(Struct, frozen=True):
    """Of `events` in the file, the agent had `known` before."""

    events: int
    known: int


def send_file(file: Path, connect: Callable[[], Handover], pause: Callable[[float], None]) -> Sent:
    """Hand over every line of a file, as often as it takes.

    Raises RefusedError, SourceError, and HandoverError when the agent took nothing in `TRIES_MAX` tries.
    """
    first_known: int | None = None
    taken, failures = 0, 0
    while True:
        before = taken
        try:
            with closing(connect()) as handover:
                first_known = handover.known if first_known is None else first_known
                taken = max(taken, handover.known)
                for lines in _chunks(file, handover.known):
                    taken = handover.send(lines)
                taken = handover.finish()
            return Sent(taken, first_known)
        except HandoverError as error:
            failures = failures + 1 if taken == before else 0
            if failures == TRIES_MAX:
                raise HandoverError(
                    f"{file}: {error}: {taken} events are taken; send it again, it goes on there"
                ) from error
            pause(PAUSE_S)


def producer_of(file: Path) -> str:
    """Return a producer's name for a file: its own and a digest of how it begins."""
    with open(file, "rb") as opened:
        digest = sha256(opened.read(HEAD_BYTES)).hexdigest()
    return f"{file.name[:40]} {digest[:16]}"


def _chunks(file: Path, first: int) -> Iterator[list[bytes]]:
    with closing(open_source(file, follow=False)) as source:
        if source.skip(first) < first:
            raise RefusedError(
                f"{file}: the agent knows {first} events of this producer, the file has less: "
                "name another producer for another file"
            )
        chunk: list[bytes] = []
        size = 0
        while lines := source.read(CHUNK_EVENTS):
            for line in lines:
                if chunk and (len(chunk) == CHUNK_EVENTS or size + len(line) > CHUNK_BYTES):
                    yield chunk
                    chunk, size = [], 0
                chunk.append(line)
                size += len(line) + 1
        if chunk:
            yield chunk


class SocketHandover:
    """Implements `Handover` by the protocol of `core.line_session`."""

    def __init__(self, path: Path, contract: str, producer: str) -> None:
        self._open: list[int] = []
        self._path = path
        self._connect()
        try:
            with _trouble(str(path)):
                self.known = self._greet({"hello": 1, "contract": contract, "producer": producer})
        except BaseException:
            self._sock.close()
            raise
        self._next = self._taken = self.known

    def send(self, lines: list[bytes]) -> int:
        with _trouble("the agent"):
            self._write(b"".join(line + b"\n" for line in lines))
            self._next += len(lines)
            self._open.append(self._next)
            while len(self._open) > CHUNKS_OPEN:
                self._await(self._open[0])
        return self._taken

    def finish(self) -> int:
        with _trouble("the agent"):
            self._await(self._next)
        return self._taken

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def _connect(self) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ANSWER_S)
        try:
            with _trouble(str(self._path)):
                self._sock.connect(str(self._path))
        except BaseException:
            self._sock.close()
            raise
        self._file = self._sock.makefile("rb")

    def _greet(self, hello: dict[str, Any]) -> int:
        """Return the number of the first event that the agent does not have for good."""
        self._write(json.dumps(hello).encode() + b"\n")
        welcome = self._read()
        held_from: int | None = welcome.get("held_from")
        if held_from is None or hello.get("first") == held_from:
            return hello.get("first") or welcome["next"] or 0
        self.close()
        self._connect()
        return self._greet({**hello, "first": held_from})

    def _await(self, number: int) -> None:
        while self._taken < number:
            answer = self._read()
            self._taken = answer["ack"]
            if answer.get("held", 0) >= number > self._taken:
                raise HandoverError(_HELD)
        self._open = [end for end in self._open if end > self._taken]

    def _write(self, data: bytes) -> None:
        """Send; an agent that ends the connection meanwhile has said why, and that is what is told."""
        try:
            self._sock.sendall(data)
        except ConnectionError:
            while True:
                self._read()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise HandoverError("the agent ended the connection")
        answer: dict[str, Any] = json.loads(line)
        if answer.get("error") in ("busy", "timeout", "too_many_connections"):
            raise HandoverError(f"the agent is busy: {answer['message']}")
        if "error" in answer:
            raise RefusedError(f"the agent refuses: {answer['error']}: {answer['message']}")
        return answer


class HttpHandover:
    """Implements `Handover` by the interface of `core.http_session`, a request for each chunk."""

    def __init__(self, url: str, token_file: Path, contract: str, producer: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.path not in ("", "/"):
            raise RefusedError(f"{url}: expected a URL like http://127.0.0.1:8640")
        self._client = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_S)
        self._target = f"/v1/events/{contract}"
        self._producer = quote(producer, safe="")
        self._token = read_secret(token_file).decode()
        try:
            known = self._post(0, [])
            self.known: int = known.get("held_from", known["next"]) or 0
        except BaseException:
            self._client.close()
            raise
        self._next: int = self.known

    def send(self, lines: list[bytes]) -> int:
        self._next = self._post(self._next, lines)["next"]
        return self._next

    def finish(self) -> int:
        return self._next

    def close(self) -> None:
        self._client.close()

    def _post(self, first: int, lines: list[bytes]) -> dict[str, Any]:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/x-ndjson",
            "Idempotency-Key": f'"{self._producer}/{first}"',
        }
        with _trouble("the agent"):
            self._client.request("POST", self._target, b"".join(line + b"\n" for line in lines), headers)
            response = self._client.getresponse()
            body = response.read()
        try:
            answer: dict[str, Any] = json.loads(body)
        except ValueError as error:
            raise RefusedError(f"expected an agent's answer, found status {response.status}, no JSON") from error
        if response.status in _AGAIN:
            raise HandoverError(f"the agent is busy: {answer.get('message')}")
        if response.status == 202:
            raise HandoverError(_HELD)
        if response.status != 200:
            raise RefusedError(f"the agent refuses: {answer.get('error')}: {answer.get('message')}")
        return answer


def decide_by_socket(path: Path, wish: str, person: str) -> dict[str, Any]:
    """Tell an agent what a person has decided, or ask it; return its answer, see `core.sources.consent_lines`.

    Raises HandoverError when the same may be tried again, RefusedError when that cannot help.
    """
    with _trouble(str(path)), closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        sock.settimeout(ANSWER_S)
        sock.connect(str(path))
        sock.sendall(_request(wish, person) + b"\n")
        return _understood(sock.makefile("rb").readline())


def decide_by_http(url: str, token_file: Path, wish: str, person: str) -> dict[str, Any]:
    """Do the same as `decide_by_socket` over HTTP."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None or parts.path not in ("", "/"):
        raise RefusedError(f"{url}: expected a URL like http://127.0.0.1:8640")
    headers = {"Authorization": f"Bearer {read_secret(token_file).decode()}", "Content-Type": "application/json"}
    client = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_S)
    with _trouble(url), closing(client):
        client.request("POST", "/v1/consent", _request(wish, person), headers)
        return _understood(client.getresponse().read())


def _request(wish: str, person: str) -> bytes:
    return json.dumps({"consent": wish, "person": person}, ensure_ascii=False).encode()


def _understood(line: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise HandoverError("the agent ended the connection") from error
    if answer.get("error") in ("busy", "timeout", "too_many_connections", "too_much_unanswered"):
        raise HandoverError(f"the agent is busy: {answer['message']}")
    if "error" in answer:
        raise RefusedError(f"the agent refuses: {answer['error']}: {answer['message']}")
    return answer


@contextmanager
def _trouble(where: str) -> Iterator[None]:
    """Turn what a connection may raise into what to do about it."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise HandoverError(f"{where}: {error}") from error
