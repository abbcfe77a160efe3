"""Connections of producers on one listening socket, all in one thread, each with its session.

What slows producers down: a connection is read only while few of its events, and few of all, are unanswered. Beyond
that its bytes stay in the kernel, and a producer that writes on is held up there.
"""

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from edge_agent.adapters.connection import Connection, Ticket
from edge_agent.core.sources.offers import Asked, Offered, Settled, SourceFailed
from edge_agent.core.sources.session import Ask, Close, Offer, Reply, Session, Step
from edge_agent.ports import Put

CONNECTIONS_MAX: Final = 20  # connections of one source; a tablet has a few apps
REFUSALS_MAX: Final = 4  # further connections that are told so at once; others wait in the kernel
EVENTS_MAX: Final = 20_000  # events unanswered in one source; five flushes
BYTES_MAX: Final = 4_194_304  # bytes unanswered in one source; as much as one flush may have
CONNECTION_EVENTS_MAX: Final = 8_000  # events unanswered on one connection: one flush written while the next gathers
CONNECTION_BYTES_MAX: Final = 1_048_576  # bytes unanswered on one connection, so that it takes four to fill the source
RECEIVE_BYTES: Final = 65_536  # bytes read at once; a connection may be over its limit by so many
REPLY_BYTES_MAX: Final = 65_536  # bytes of replies that a producer leaves unread before it is not read any more
LINGER_S: Final = 1.0  # s; what still comes after the last reply is read, else the kernel would take the reply back
LOOK_S: Final = 1.0  # s; the longest the thread sleeps

_log = logging.getLogger(__name__)


class StreamServer:
    """Implements `ports.PushSource` over a listening socket, which it owns.

    `screen` looks at a new connection and returns why it may not speak, or None.
    """

    def __init__(
        self,
        name: str,
        listener: socket.socket,
        new_session: Callable[[Callable[[int], bool]], Session],
        put: Put,
        monotonic_s: Callable[[], float],
        screen: Callable[[socket.socket], str | None] = lambda _: None,
    ) -> None:
        self.name = name
        self._listener = listener
        self._new_session = new_session
        self._put = put
        self._monotonic_s = monotonic_s
        self._screen = screen
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._answers: deque[tuple[int, Settled]] = deque()
        self._connections: set[Connection] = set()
        self._tickets: dict[int, Ticket] = {}
        self._next_ticket = 0
        self._events = self._bytes = 0
        self.trouble: str | None = None
        self._rest_until_s = 0.0
        self._buffer = bytearray(RECEIVE_BYTES)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        for sock in (listener, self._wake, self._woken):
            sock.setblocking(False)

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to take connections."""
        self._thread.start()

    def settle(self, ticket: int, settled: Settled) -> None:
        """Tell what became of an offer; any thread may."""
        self._answers.append((ticket, settled))
        self._ring()

    def close(self) -> None:
        """End all connections; what is not settled stays with its producers."""
        self._stopping = True
        self._ring()
        if self._thread.ident is None:
            self._release()
        else:
            self._thread.join()

    def _ring(self) -> None:
        # A full pipe has woken the thread already; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")

    def _run(self) -> None:
        try:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping:
                self._turn()
            self._tell()  # what was settled before the end: else it would only come again
        except Exception as error:  # noqa: BLE001 - a source that ended in silence would lose events for ever
            _log.exception("source %s", self.name)
            self._put(SourceFailed(self.name, f"source {self.name} stopped: {error!r}: restart the agent"))
        finally:
            self._release()

    def _release(self) -> None:
        for connection in tuple(self._connections):
            self._drop(connection)
        self._selector.close()
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def _turn(self) -> None:
        for key, mask in self._selector.select(self._wait_s()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._woken:
                self._woken.recv(RECEIVE_BYTES)
            else:
                connection: Connection = key.data
                if mask & selectors.EVENT_WRITE:
                    self._flush(connection)
                if mask & selectors.EVENT_READ and connection in self._connections:
                    self._read(connection)
        self._tell()
        now = self._monotonic_s()
        for connection in tuple(self._connections):
            self._look_after(connection, now)
        accepts = len(self._connections) < CONNECTIONS_MAX + REFUSALS_MAX and now >= self._rest_until_s
        self._select(self._listener, selectors.EVENT_READ if accepts else 0, None)

    def _wait_s(self) -> float:
        now = self._monotonic_s()
        return max(0.0, min([LOOK_S, *(c.due_s - now for c in self._connections if c.due_s is not None)]))

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # It has gone already, or the process has no descriptor left, of which the kernel would tell without end.
            self._rest_until_s = self._monotonic_s() + LOOK_S
            self._say(f"a connection could not be taken: {error.strerror}")
            return
        sock.setblocking(False)
        connection = Connection(sock, self._monotonic_s())
        connection.session = self._new_session(lambda size: self._reserve(connection, size))
        self._connections.add(connection)
        if sum(not other.closing for other in self._connections) > CONNECTIONS_MAX:
            reason = f"expected at most {CONNECTIONS_MAX} connections: use one for many events"
            self._refuse(connection, "too_many_connections", reason)
        elif (refusal := self._screen(sock)) is not None:
            self._refuse(connection, "not_allowed", refusal)

    def _refuse(self, connection: Connection, code: str, reason: str) -> None:
        self._say(reason)
        self._follow(connection, connection.session.refuse(code, reason))

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            _log.warning("source %s: %s", self.name, trouble)
        self.trouble = trouble

    def _reserve(self, connection: Connection, size: int) -> bool:
        if self._events >= EVENTS_MAX or self._bytes + size > BYTES_MAX:
            return False
        connection.reserved_bytes += size
        self._bytes += size
        return True

    def _read(self, connection: Connection) -> None:
        try:
            size = connection.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)
            return
        if size == 0:
            connection.at_end = True
            self._follow(connection, connection.session.ended())
        elif not connection.closing:
            self._follow(connection, connection.session.receive(bytes(memoryview(self._buffer)[:size])))

    def _follow(self, connection: Connection, steps: list[Step]) -> None:
        """Do what a session asked for."""
        for step in steps:
            match step:
                case Offer():
                    self._offer(connection, step)
                case Ask():
                    self._ask(connection, step)
                case Reply(data=data):
                    if not connection.unsent:
                        connection.wrote_s = self._monotonic_s()
                    connection.unsent += data
                case Close():
                    connection.closing = True
        self._flush(connection)

    def _offer(self, connection: Connection, offer: Offer) -> None:
        number = self._ticket(connection, len(offer.lines), max(offer.size_bytes, connection.reserved_bytes))
        self._put(Offered(self.name, number, offer.contract, offer.lines, offer.producer, offer.first_number))

    def _ticket(self, connection: Connection, events: int, size_bytes: int) -> int:
        """Number what the agent is to answer; room that was reserved becomes its own."""
        number, self._next_ticket = self._next_ticket, self._next_ticket + 1
        ticket = Ticket(connection, events, size_bytes)
        self._bytes += ticket.bytes - connection.reserved_bytes
        self._events += ticket.events
        connection.reserved_bytes = 0
        connection.events += ticket.events
        connection.bytes += ticket.bytes
        connection.open.append(number)
        self._tickets[number] = ticket
        return number

    def _ask(self, connection: Connection, ask: Ask) -> None:
        number = self._ticket(connection, 0, connection.reserved_bytes)
        self._put(Asked(self.name, number, ask.person, ask.wish))

    def _tell(self) -> None:
        while self._answers:
            self._answered(*self._answers.popleft())

    def _answered(self, number: int, settled: Settled) -> None:
        """Give its room back, and tell the session when it is the oldest offer's turn."""
        ticket = self._tickets.pop(number, None)
        if ticket is None:
            return
        connection = ticket.connection
        self._events -= ticket.events
        self._bytes -= ticket.bytes
        connection.events -= ticket.events
        connection.bytes -= ticket.bytes
        connection.settled[number] = settled
        while connection.open and connection.open[0] in connection.settled and connection in self._connections:
            answer = connection.settled.pop(connection.open.popleft())
            self._follow(connection, connection.session.settled(answer))

    def _flush(self, connection: Connection) -> None:
        if connection.unsent:
            try:
                sent = connection.sock.send(connection.unsent)
            except BlockingIOError:
                return
            except OSError:
                self._drop(connection)
                return
            del connection.unsent[:sent]
            connection.wrote_s = self._monotonic_s()
        if connection.closing and not connection.unsent:
            if connection.at_end:
                self._drop(connection)
            elif connection.linger_until_s is None:
                connection.linger_until_s = self._monotonic_s() + LINGER_S
                with contextlib.suppress(OSError):  # the other side has gone, which the next read says
                    connection.sock.shutdown(socket.SHUT_WR)

    def _look_after(self, connection: Connection, now_s: float) -> None:
        """Begin a phase's time, end what has taken too long, and choose what to listen for."""
        session = connection.session
        if session.phase != connection.phase:
            connection.phase, connection.since_s = session.phase, now_s
        connection.due_s = connection.next_due_s()
        if connection.due_s is not None and now_s >= connection.due_s:
            if connection.closing or connection.unsent:
                self._drop(connection)
                return
            self._follow(connection, session.refuse("timeout", "expected the rest sooner"))
            connection.phase, connection.since_s = session.phase, now_s
            connection.due_s = connection.next_due_s() if connection in self._connections else None
        if connection in self._connections:
            self._select(connection.sock, self._interest(connection), connection)

    def _interest(self, connection: Connection) -> int:
        reads = connection.linger_until_s is not None or (
            connection.session.wants_data
            and not connection.closing
            and len(connection.unsent) < REPLY_BYTES_MAX
            and connection.events < CONNECTION_EVENTS_MAX
            and connection.bytes < CONNECTION_BYTES_MAX
            and (connection.session.reserves or (self._events < EVENTS_MAX and self._bytes < BYTES_MAX))
        )
        wants = selectors.EVENT_READ if reads and not connection.at_end else 0
        return wants | (selectors.EVENT_WRITE if connection.unsent else 0)

    def _select(self, sock: socket.socket, wanted: int, data: Connection | None) -> None:
        found = self._selector.get_map().get(sock)
        if found is None:
            if wanted:
                self._selector.register(sock, wanted, data)
        elif not wanted:
            self._selector.unregister(sock)
        elif found.events != wanted:
            self._selector.modify(sock, wanted, data)

    def _drop(self, connection: Connection) -> None:
        """End a connection; its open offers keep their room until they are settled."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._select(connection.sock, 0, None)
            self._bytes -= connection.reserved_bytes
            connection.sock.close()
