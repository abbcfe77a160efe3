"""A bell that other threads ring to end the wait of the thread that owns the broker's socket."""

import socket


class Bell:
    """A socket that becomes readable when it was rung."""

    def __init__(self) -> None:
        self._inner, self._outer = socket.socketpair()
        self._inner.setblocking(False)
        self._outer.setblocking(False)

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._inner.fileno()

    def ring(self) -> None:
        """End the owner's wait; may be called by any thread and from signal handlers."""
        try:
            self._outer.send(b"\0")
        except BlockingIOError:
            return  # full of rings that nobody has answered yet

    def answer(self) -> None:
        """Forget all rings so far. Look for work after this, never before."""
        try:
            self._inner.recv(65_536)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both ends."""
        self._inner.close()
        self._outer.close()
