"""What the pushed sources' tests play against: an agent's loop with a disk of its own, and apps as producers.

The apps speak through raw sockets and the standard library's HTTP client, and share no code with the sources.
"""

import http.client
import json
import queue
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edge_agent.core.sources.admissions import Admissions, Answer
from edge_agent.core.sources.offers import Offered, SourceFailed
from edge_agent.core.sources.producers import Producers
from edge_agent.ports import PushSource, Put
from tests.waiting import DEADLINE_S

CONTRACT = "clicks"
TOKEN = "0123456789abcdef-test"


class Loop:
    """An agent reduced to what a source sees of it. `durable` and `producers` are its disk, and outlive a crash.

    Gates that are closed hold it: `admits` before it looks at offers, `writes` before what it admitted is durable,
    `settles` before it tells the source.
    """

    def __init__(self, open_source: Callable[[Put], PushSource]) -> None:
        self._open_source = open_source
        self.durable: list[bytes] = []
        self.producers = Producers()
        self.failures: list[SourceFailed] = []
        self.is_full = False
        self.admits, self.writes, self.settles = threading.Event(), threading.Event(), threading.Event()
        for gate in self._gates():
            gate.set()
        self._start()

    def _gates(self) -> tuple[threading.Event, ...]:
        return self.admits, self.writes, self.settles

    def _start(self) -> None:
        self.offered: list[Offered] = []  # all that this process has seen
        self.admitted = self.written = self.settled = 0  # offers that got so far
        self._crashed = threading.Event()
        self._inbox: queue.SimpleQueue[Offered | None] = queue.SimpleQueue()
        self.peak = 0
        self.source = self._open_source(self._put)
        self.source.start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def unanswered(self) -> int:
        """Events that were offered and not settled."""
        return sum(len(offered.lines) for offered in self.offered[self.settled :])

    def _put(self, news: Offered | SourceFailed) -> None:
        if isinstance(news, SourceFailed):
            self.failures.append(news)
            return
        self.offered.append(news)
        self.peak = max(self.peak, self.unanswered)
        self._inbox.put(news)

    def crash(self) -> None:
        """End agent and source at once, and start both again with what is durable; the gates open."""
        self._end()
        for gate in self._gates():
            gate.set()
        self._start()

    def close(self) -> None:
        """End both."""
        self._end()
        assert self.failures == []

    def _end(self) -> None:
        self._crashed.set()
        self._inbox.put(None)
        for gate in self._gates():
            gate.set()
        self._thread.join()
        self.source.close()

    def _run(self) -> None:
        desk = Admissions(self.producers)
        while not self._crashed.is_set():
            batch = self._take()
            self.admits.wait()
            lines = [line for offered in batch for line in desk.take(offered)]
            if self.is_full:
                self._settle(desk.dropped("the spool is full"))
                continue
            self.admitted += len(batch)
            self.writes.wait()
            if self._crashed.is_set():
                return
            if desk.must_write:
                self.durable, self.producers = [*self.durable, *lines], desk.producers
            assert desk.producers == self.producers
            self.written += len(batch)
            self.settles.wait()
            if not self._crashed.is_set():
                self._settle(desk.written())

    def _settle(self, answers: list[Answer]) -> None:
        for answer in answers:
            assert answer.source == self.source.name
            self.settled += 1
            self.source.settle(answer.ticket, answer.settled)

    def _take(self) -> list[Offered]:
        batch: list[Offered] = []
        found = self._inbox.get()
        while True:
            if found is not None:
                assert found.contract == CONTRACT
                batch.append(found)
            try:
                found = self._inbox.get_nowait()
            except queue.Empty:
                return batch


class Told(dict[str, Any]):
    """What an app was told; `taken` is the number below which all its events are taken."""

    @property
    def taken(self) -> int | None:
        found = self.get("ack", None if "error" in self else self.get("next"))
        assert found is None or isinstance(found, int)
        return found


class App(Protocol):
    """A producer on one connection."""

    def greet(self, first: int) -> None:
        """Do what must come before events from this number on."""

    def send(self, first: int, lines: list[bytes]) -> None:
        """Hand events over, without waiting for the answer."""

    def answer(self) -> Told:
        """Wait until the last event sent is answered."""

    def is_answered(self) -> bool:
        """Say whether an answer is there to be read."""

    def close(self) -> None:
        """Go away."""


class SocketApp:
    """Speaks the line protocol; `send` begins a connection with the number of its first event."""

    def __init__(self, path: Path, producer: str | None) -> None:
        self._path = path
        self._producer = producer
        self._sock: socket.socket | None = None
        self._next = 0

    def greet(self, first: int) -> None:
        self.close()
        self._sock = connect(self._path)
        self._file = self._sock.makefile("rb")
        greeting: dict[str, Any] = {"hello": 1, "contract": CONTRACT}
        if self._producer is not None:
            greeting |= {"producer": self._producer, "first": first}
        self._sock.sendall(json.dumps(greeting).encode() + b"\n")
        self.welcome = json.loads(self._file.readline())
        self._next = first

    def send(self, first: int, lines: list[bytes]) -> None:
        if self._sock is None or first != self._next:
            self.greet(first)
        assert self._sock is not None
        self._sock.sendall(b"".join(line + b"\n" for line in lines))
        self._next = first + len(lines)

    def answer(self) -> Told:
        while True:
            found = Told(json.loads(self._file.readline()))
            if "error" in found or found["ack"] == self._next:
                return found

    def is_answered(self) -> bool:
        assert self._sock is not None
        return has_data(self._sock)

    def close(self) -> None:
        if self._sock is not None:
            self._file.close()
            self._sock.close()
            self._sock = None


class HttpApp:
    """Posts JSON lines with the standard library's client."""

    def __init__(self, port: int, producer: str | None) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        self._producer = producer

    def greet(self, first: int) -> None:
        self._client.connect()

    def send(self, first: int, lines: list[bytes]) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-ndjson"}
        if self._producer is not None:
            headers["Idempotency-Key"] = f'"{self._producer}/{first}"'
        self._client.request("POST", f"/v1/events/{CONTRACT}", b"\n".join(lines) + b"\n", headers)

    def answer(self) -> Told:
        response = self._client.getresponse()
        return Told(json.loads(response.read()) | {"status": response.status})

    def is_answered(self) -> bool:
        return has_data(self._client.sock)

    def close(self) -> None:
        self._client.close()


def connect(path: Path) -> socket.socket:
    """Connect to a Unix socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(DEADLINE_S)
    sock.connect(str(path))
    return sock


def has_data(sock: socket.socket) -> bool:
    """Say whether bytes can be read at once."""
    return bool(select.select([sock], [], [], 0)[0])
