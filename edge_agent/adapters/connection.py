"""One producer's connection as the server of its source keeps it."""

import socket
from collections import deque
from typing import Final

from edge_agent.core.sources.offers import Settled
from edge_agent.core.sources.session import Session

WRITE_S: Final = 30.0  # s; a producer that reads nothing for so long is gone


class Ticket:
    """An offer that the agent has not answered."""

    def __init__(self, connection: "Connection", events: int, size_bytes: int) -> None:
        self.connection = connection
        self.events = events
        self.bytes = size_bytes


class Connection:
    """A producer. `open` are offers that its session was not told about, in order; `settled` answers out of turn."""

    session: Session

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.unsent = bytearray()
        self.open: deque[int] = deque()
        self.settled: dict[int, Settled] = {}
        self.events = self.bytes = self.reserved_bytes = 0
        self.at_end = self.closing = False
        self.phase = 0
        self.since_s = self.wrote_s = now_s
        self.linger_until_s: float | None = None
        self.due_s: float | None = None

    def next_due_s(self) -> float | None:
        """Return when it has taken too long: over its farewell, over reading its replies, or over what it began."""
        if self.linger_until_s is not None:
            return self.linger_until_s
        if self.unsent:
            return self.wrote_s + WRITE_S
        patience_s = self.session.patience_s
        return self.since_s + patience_s if patience_s is not None and not self.closing else None
