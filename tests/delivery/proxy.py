"""A TCP proxy that does to a link what the world does: cuts it, stalls it, slows it, hangs up."""

import contextlib
import socket
import struct
import threading
from time import monotonic
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 16_384  # bytes moved at once; small enough that a cut falls into the middle of a packet
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST and drops what is on the way


class ChaosProxy:
    """Listens on a port of its own and leads to another. Every method may be called from any thread."""

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._server = socket.create_server((HOST, 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._hangs_up = False
        self._swallows = False
        self._budget: int | None = None
        self.delay_s = 0.0  # s; how long every chunk is held, in both directions
        self.attempts_s: list[float] = []  # when somebody connected, monotonic
        self.bytes_up = 0  # moved upstream, over all connections
        self._closed = threading.Event()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def hang_up(self) -> None:
        """Reset what is connected; from now on, close every new connection at once."""
        self._hangs_up, self._swallows = True, False
        self.cut()

    def swallow(self) -> None:
        """Let connections stand from now on, the present ones too, and move nothing: half-open."""
        self._swallows, self._hangs_up = True, False
        self.stall()

    def flow(self) -> None:
        """Take new connections and move what they send. Connections that were stalled stay so."""
        self._hangs_up = self._swallows = False

    def stall(self) -> None:
        """Move nothing more on the present connections; new ones are not concerned."""
        with self._lock:
            for link in self._links:
                link.stalled.set()

    def cut(self) -> None:
        """Reset the present connections."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.reset()

    def cut_after(self, bytes_up: int) -> None:
        """Reset the connection over which so many more bytes have gone upstream."""
        with self._lock:
            self._budget = bytes_up

    def has_cut(self) -> bool:
        """Say whether the cut that was asked for has been made."""
        with self._lock:
            return self._budget is None

    def close(self) -> None:
        """Stop."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            link = _Link(self, client)
            # A connection that somebody knows of can be cut.
            with self._lock:
                self._links.append(link)
            self.attempts_s.append(monotonic())
            if self._hangs_up:
                link.reset()
                continue
            if self._swallows:
                link.stalled.set()
            elif not link.join(self.upstream_port):
                continue
            link.run()

    def allowance(self, size: int) -> int:
        """Return how many of these bytes may go upstream before the cut that was asked for."""
        with self._lock:
            self.bytes_up += size
            if self._budget is None:
                return size
            allowed = min(size, self._budget)
            self._budget -= allowed
            if self._budget == 0 and allowed < size:
                self._budget = None
            return allowed

    def wait(self) -> None:
        """Hold a chunk for the delay."""
        if self.delay_s:
            self._closed.wait(self.delay_s)


class _Link:
    def __init__(self, proxy: ChaosProxy, client: socket.socket) -> None:
        self._proxy, self._client = proxy, client
        self._upstream: socket.socket | None = None
        self.stalled = threading.Event()
        self._broken = threading.Event()  # what is read from now on is of our own making
        self._ended = threading.Semaphore(0)  # one for each direction that has come to its end

    def join(self, port: int) -> bool:
        try:
            self._upstream = socket.create_connection((HOST, port), timeout=5)
        except OSError:
            self.reset()
            return False
        self._upstream.settimeout(None)
        return True

    def run(self) -> None:
        if self._upstream is None:
            return
        for source, target, up in ((self._client, self._upstream, True), (self._upstream, self._client, False)):
            threading.Thread(target=self._move, args=(source, target, up), name="link", daemon=True).start()

    def reset(self) -> None:
        self._broken.set()
        for end in (self._client, self._upstream):
            if end is None:
                continue
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads; closing alone would not
            end.close()

    def _move(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(CHUNK_BYTES):
                self._proxy.wait()
                if self.stalled.is_set():
                    return  # the sockets stay open: nobody is told
                allowed = self._proxy.allowance(len(data)) if up else len(data)
                target.sendall(data[:allowed])
                if allowed < len(data):
                    self.reset()
                    return
            if not self.stalled.is_set() and not self._broken.is_set():
                target.shutdown(socket.SHUT_WR)
                self._close_after_both()
        except OSError:
            if not self.stalled.is_set():
                self.reset()

    def _close_after_both(self) -> None:
        if not self._ended.acquire(blocking=False):
            self._ended.release()
            return
        for end in (self._client, self._upstream):
            if end is not None:
                end.close()
