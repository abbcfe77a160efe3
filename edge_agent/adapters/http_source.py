"""HTTP on the loopback interface for apps on the same device; `core.http_session` has the interface."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.adapters.secret_files import read_secret
from edge_agent.adapters.stream_server import StreamServer
from edge_agent.config import HttpSource
from edge_agent.core.sources.http_session import Access, HttpSession
from edge_agent.errors import SourceError
from edge_agent.ports import Put

HOST: Final = "127.0.0.1"
BACKLOG: Final = 16  # connections that the kernel holds for us


def open_http_source(config: HttpSource, put: Put, monotonic_s: Callable[[], float]) -> StreamServer:
    """Return the source, listening and not yet started. Raises SourceError."""
    token = read_secret(Path(config.token_file))
    listener = _listen(config.port)
    port: int = listener.getsockname()[1]
    access = Access(token, hosts_of(port), frozenset(config.contracts))
    return StreamServer(config.name, listener, lambda reserve: HttpSession(access, reserve), put, monotonic_s)


def hosts_of(port: int) -> frozenset[str]:
    """Return the `Host` values that mean us: a name that a page led here by DNS is not among them."""
    names = (HOST, "localhost")
    return frozenset(f"{name}:{port}" for name in names) | (frozenset(names) if port == 80 else frozenset())


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SourceError(f"{HOST}:{port}: expected a port to listen on: {error.strerror}") from error
    return listener
