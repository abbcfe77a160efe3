"""Telling the service manager how the agent is: sd_notify(3), datagrams of `NAME=VALUE` lines to a socket.

Done here and not by a package: it is one datagram, and the agent has no memory to spare.
"""

import socket
from collections.abc import Mapping
from typing import Final

NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
STATUS_CHARS_MAX: Final = 200  # what `systemctl status` shows in one line


class ServiceManager:
    """Sends to the socket that the environment names; without one every method does nothing.

    A manager that does not read, or has gone, is not worth stopping for: a watchdog of its own decides then.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get(NOTIFY_SOCKET, "")
        # An abstract address, and no other kind than a path, as sd_notify(3) has it.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        is_address = address.startswith(("/", "@"))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if is_address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self._ready = False
        self.unheard = 0  # datagrams that were not taken

    def alive(self, status: str) -> None:
        """Say that the loop goes round: at first that the agent is ready, always that it need not be killed."""
        state = "" if self._ready else "READY=1\n"
        self._ready = True
        self._send(f"{state}WATCHDOG=1\nSTATUS={' '.join(status.split())[:STATUS_CHARS_MAX]}")

    def stopping(self) -> None:
        """Say that the agent ends by itself."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            self.unheard += 1
