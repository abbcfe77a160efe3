"""What the service manager hears, over a real socket."""

import socket
from pathlib import Path

from edge_agent.adapters.service_manager import STATUS_CHARS_MAX, ServiceManager


def heard(sock: socket.socket) -> list[str]:
    sock.setblocking(False)
    found = []
    while True:
        try:
            found.append(sock.recv(4_096).decode())
        except BlockingIOError:
            return found


def test_ready_comes_once_and_a_sign_of_life_every_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        manager.alive("link up, 0 bytes to send")
        manager.alive("链路\ndown " + "x" * 500)
        manager.stopping()
        manager.close()
        first, second, last = heard(sock)
    assert first == "READY=1\nWATCHDOG=1\nSTATUS=link up, 0 bytes to send"
    assert second.startswith("WATCHDOG=1\nSTATUS=链路 down x")
    assert len(second.splitlines()) == 2
    assert len(second.splitlines()[1]) == len("STATUS=") + STATUS_CHARS_MAX
    assert last == "STOPPING=1"


def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")  # the kernel picks an abstract address
        address = sock.getsockname()
        manager = ServiceManager({"NOTIFY_SOCKET": "@" + address[1:].decode()})
        manager.alive("up")
        manager.close()
        assert len(heard(sock)) == 1


def test_without_a_manager_nothing_is_sent() -> None:
    for environment in ({}, {"NOTIFY_SOCKET": "vsock:2:9"}):
        manager = ServiceManager(environment)
        manager.alive("up")
        manager.stopping()
        manager.close()
        assert manager.unheard == 0


def test_a_manager_that_has_gone_or_does_not_read_stops_nobody(tmp_path: Path) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.alive("up")
    assert manager.unheard == 1
    manager.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "deaf"))
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "deaf")})
        for _ in range(2_000):  # more than any queue of datagrams holds
            manager.alive("up")
        assert manager.unheard > 0
        manager.close()
