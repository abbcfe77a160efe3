"""A Unix socket for apps on the same device; `core.line_session` has the protocol.

Who may speak is decided twice: by the file's mode (owner and group), and by the user that the kernel says is at the
other end.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from edge_agent.adapters.stream_server import StreamServer
from edge_agent.config import SocketSource
from edge_agent.core.sources.line_session import LineSession
from edge_agent.errors import SourceError
from edge_agent.ports import Put

MODE: Final = 0o660  # an app is let in by the group of the socket's folder
BACKLOG: Final = 16  # connections that the kernel holds for us
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


def open_socket_source(config: SocketSource, put: Put, monotonic_s: Callable[[], float]) -> "SocketServer":
    """Return the source, listening and not yet started. Raises SourceError."""
    return SocketServer(config, put, monotonic_s)


class SocketServer(StreamServer):
    """A `StreamServer` whose socket file goes with it."""

    def __init__(self, config: SocketSource, put: Put, monotonic_s: Callable[[], float]) -> None:
        self._path = Path(config.path)
        contracts, uids = frozenset(config.contracts), frozenset(config.uids or (os.geteuid(),))
        listener = listen(self._path)
        self._inode = self._path.stat().st_ino
        super().__init__(
            config.name,
            listener,
            lambda _: LineSession(contracts),
            put,
            monotonic_s,
            screen=lambda sock: _screen(sock, uids),
        )

    def close(self) -> None:
        """End all connections and remove the socket file, unless another agent has put its own there."""
        super().close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


def listen(path: Path) -> socket.socket:
    """Listen on a path; a socket that nobody listens on any more is replaced. Raises SourceError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The file must never be open to others, not even between its creation and a change of its mode.
        umask = os.umask(0o777 & ~MODE)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SourceError(f"socket {path}: expected a path to listen on: {error.strerror or error}") from error
    except SourceError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove a socket file that an earlier process left. Raises SourceError when it is in use, or no socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SourceError(f"socket {path}: expected a socket or nothing there, found another file: remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        found = probe.connect_ex(str(path))
    if found == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif found != errno.ENOENT:
        raise SourceError(f"socket {path}: another process listens there: stop it, or choose another path")


def _screen(sock: socket.socket, uids: Collection[int]) -> str | None:
    """Ask the kernel who connected."""
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if uid in uids:
        return None
    return f"user {uid} may not send events here: expected one of {', '.join(map(str, sorted(uids)))}"
