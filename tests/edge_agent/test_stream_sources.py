"""What only a real socket shows: who may connect, what a stale file means, what curl says, how time is kept."""

import errno
import json
import os
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters.connection import Connection
from edge_agent.adapters.http_source import open_http_source
from edge_agent.adapters.secret_files import read_secret
from edge_agent.adapters.socket_source import open_socket_source
from edge_agent.adapters.stream_server import StreamServer
from edge_agent.config import HttpSource, SocketSource
from edge_agent.core.sources.offers import busy
from edge_agent.errors import SourceError
from edge_agent.ports import PushSource, Put
from tests.edge_agent.producing import CONTRACT, TOKEN, HttpApp, Loop, SocketApp, connect
from tests.waiting import DEADLINE_S, eventually


class SteppingClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def sockets(tmp_path: Path, clock: SteppingClock) -> Iterator[Loop]:
    config = SocketSource("apps", str(tmp_path / "agent.sock"), (CONTRACT,))
    loop = Loop(lambda put: open_socket_source(config, put, clock))
    yield loop
    loop.close()


@pytest.fixture
def web(tmp_path: Path, clock: SteppingClock) -> Iterator[Loop]:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)

    def open_source(put: Put) -> PushSource:
        return open_http_source(HttpSource("apps", 0, (CONTRACT,), str(token)), put, clock)

    loop = Loop(open_source)
    yield loop
    loop.close()


def port_of(loop: Loop) -> int:
    assert isinstance(loop.source, StreamServer)
    return loop.source.port


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(65_536):
        data += part
    return data


def test_the_socket_file_is_for_owner_and_group_and_goes_with_the_source(sockets: Loop, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    sockets.crash()
    assert path.exists()
    sockets.source.close()
    assert not path.exists()


def test_a_stale_socket_file_is_replaced_and_a_live_one_is_not(sockets: Loop, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    source = open_socket_source(SocketSource("other", str(stale), (CONTRACT,)), lambda _: None, time.monotonic)
    source.close()
    assert not stale.exists()
    live = SocketSource("other", str(tmp_path / "agent.sock"), (CONTRACT,))
    with pytest.raises(SourceError, match="another process listens"):
        open_socket_source(live, lambda _: None, time.monotonic)
    app = SocketApp(tmp_path / "agent.sock", "app")
    app.send(0, [b"{}"])
    assert app.answer().taken == 1
    app.close()


@pytest.mark.parametrize(("name", "said"), [("file", "another file"), ("x" * 120, "too long"), ("no/where", "No such")])
def test_a_path_that_cannot_be_listened_on_is_said(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SourceError, match=said):
        open_socket_source(SocketSource("a", str(tmp_path / name), (CONTRACT,)), lambda _: None, time.monotonic)
    assert (tmp_path / "file").read_text() == "mine"


def test_only_users_on_the_list_may_speak(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    config = SocketSource("apps", str(path), (CONTRACT,), uids=(os.geteuid() + 1,))
    loop = Loop(lambda put: open_socket_source(config, put, time.monotonic))
    with connect(path) as sock:
        sock.sendall(b'{"hello":1,"contract":"clicks"}\n{}\n')
        answer = json.loads(read_to_end(sock))
    loop.close()
    assert answer["error"] == "not_allowed"
    assert f"user {os.geteuid()} may not" in answer["message"]
    assert loop.offered == []


def test_one_that_does_not_greet_is_sent_away(sockets: Loop, clock: SteppingClock, tmp_path: Path) -> None:
    with connect(tmp_path / "agent.sock") as silent, connect(tmp_path / "agent.sock") as speaking:
        speaking.sendall(b'{"hello":1,"contract":"clicks"}\n')
        assert b"welcome" in speaking.recv(1_000)
        silent.sendall(b'{"hel')
        eventually(lambda: len(connections(sockets)) == 2, "both are connected")
        pass_time(sockets, clock, 11.0)
        assert json.loads(read_to_end(silent))["error"] == "timeout"
        speaking.sendall(b"{}\n")
        assert json.loads(speaking.recv(1_000)) == {"ack": 1}


def test_one_that_never_reads_its_answers_is_given_up(sockets: Loop, clock: SteppingClock, tmp_path: Path) -> None:
    with connect(tmp_path / "agent.sock") as sock:
        sock.sendall(b'{"hello":1,"contract":"clicks"}\n')
        (connection,) = eventually(lambda: connections(sockets) or None, "it is connected")
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

        def is_stuffed() -> bool:
            if not connection.unsent:
                sock.sendall(b"{}\n")
            return bool(connection.unsent)

        eventually(is_stuffed, "its answers pile up")
        pass_time(sockets, clock, 31.0)
        eventually(lambda: not connections(sockets), "it is dropped")


def pass_time(loop: Loop, clock: SteppingClock, now_s: float) -> None:
    """Set the clock, and wake the source with an answer to an offer that it never made."""
    clock.now_s = now_s
    loop.source.settle(-1, busy(""))


def connections(loop: Loop) -> list[Connection]:
    assert isinstance(loop.source, StreamServer)
    return list(loop.source._connections)


def test_a_request_that_never_ends_is_answered_in_time(web: Loop, clock: SteppingClock) -> None:
    with socket.create_connection(("127.0.0.1", port_of(web)), DEADLINE_S) as sock:
        sock.sendall(b"POST /v1/ev")
        eventually(lambda: any(c.session.phase for c in connections(web)), "its first bytes are read")
        pass_time(web, clock, 11.0)
        assert read_to_end(sock).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_an_agent_that_cannot_write_answers_before_the_client_gives_up(web: Loop, clock: SteppingClock) -> None:
    web.writes.clear()
    app = HttpApp(port_of(web), "app")
    app.send(0, [b"{}"])
    eventually(lambda: web.admitted == 1, "the event waits")
    pass_time(web, clock, 31.0)
    answer = app.answer()
    assert (answer["status"], answer["error"]) == (503, "busy")
    web.writes.set()
    again = HttpApp(port_of(web), "app")
    again.send(0, [b"{}"])
    assert again.answer()["duplicate"] == 1
    assert web.durable == [b"{}"]
    app.close()
    again.close()


def test_a_client_that_sends_too_much_still_hears_why(web: Loop) -> None:
    with socket.create_connection(("127.0.0.1", port_of(web)), DEADLINE_S) as sock:
        head = f"POST /v1/events/clicks HTTP/1.1\r\nHost: localhost:{port_of(web)}\r\nAuthorization: Bearer {TOKEN}\r\n"
        sock.sendall(head.encode() + b"Content-Type: application/x-ndjson\r\nContent-Length: 9999999\r\n\r\n")
        sock.sendall(b"x" * 500_000)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock).startswith(b"HTTP/1.1 413 ")


def test_a_process_without_descriptors_waits_instead_of_asking_without_end(
    sockets: Loop, clock: SteppingClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[socket.socket] = []

    def accept(listener: socket.socket) -> tuple[socket.socket, str]:
        asked.append(listener)
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch, connect(tmp_path / "agent.sock") as sock:
        patch.setattr(socket.socket, "accept", accept)
        with connect(tmp_path / "agent.sock"):
            eventually(lambda: sockets.source.trouble, "it says what is wrong")
            for _ in range(20):
                sockets.source.settle(-1, busy(""))  # turns that would ask again
        patch.undo()
        pass_time(sockets, clock, 2.0)
        sock.sendall(b'{"hello":1,"contract":"clicks"}\n')
        assert b"welcome" in sock.recv(1_000)
    assert "Too many open files" in (sockets.source.trouble or "")
    assert len(asked) == 1


def test_curl_gets_through(web: Loop, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'{"n":1}\n' * 3_000)
    command = [
        "curl", "--silent", "--show-error", "--max-time", "60", "--expect100-timeout", "60",
        "--data-binary", f"@{body}", "--header", "Content-Type: application/x-ndjson",
        "--header", "Expect: 100-continue",
        "--header", f"Authorization: Bearer {TOKEN}", "--header", "Idempotency-Key: curl/0",
        f"http://localhost:{port_of(web)}/v1/events/clicks",
    ]  # fmt: skip
    for duplicate in (0, 3_000):
        shown = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S).stdout
        assert json.loads(shown) == {"accepted": 3_000 - duplicate, "duplicate": duplicate, "next": 3_000}
    assert len(web.durable) == 3_000


def test_http_listens_on_loopback_alone(web: Loop) -> None:
    port = port_of(web)
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [row[1] for row in listening if row[3] == "0A" and row[1].endswith(f":{port:04X}")] == [
        f"0100007F:{port:04X}"
    ]


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("0123456789abcdef", 0o604, "no access for others"),
        ("short", 0o600, "16 to 512"),
        ("0123456789 abcdef", 0o600, "without spaces"),
        ("x" * 513, 0o600, "513 bytes"),
        (None, 0o600, "readable file"),
    ],
)
def test_a_secret_that_is_none_is_said_without_being_shown(
    content: str | None, mode: int, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.touch(mode=0o600)
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(SourceError, match=said) as raised:
        read_secret(path)
    assert content is None or content not in str(raised.value)


def test_a_port_that_is_taken_is_said(web: Loop, tmp_path: Path) -> None:
    config = HttpSource("other", port_of(web), (CONTRACT,), str(tmp_path / "token"))
    with pytest.raises(SourceError, match=f"127.0.0.1:{port_of(web)}"):
        open_http_source(config, lambda _: None, time.monotonic)


def test_a_source_that_breaks_says_so(tmp_path: Path) -> None:
    config = SocketSource("apps", str(tmp_path / "agent.sock"), (CONTRACT,))

    def clock() -> float:
        raise RuntimeError("no clock")

    loop = Loop(lambda put: open_socket_source(config, put, clock))
    (failure,) = eventually(lambda: loop.failures or None, "the failure is told")
    assert (failure.source, "restart the agent" in failure.reason) == ("apps", True)
    loop.failures.clear()
    loop.close()
