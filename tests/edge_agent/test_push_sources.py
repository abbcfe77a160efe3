"""One suite over all sources that apps push to: what is acknowledged is durable, and there once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.adapters import stream_server
from edge_agent.adapters.opening import open_pushed
from edge_agent.adapters.stream_server import StreamServer
from edge_agent.config import HttpSource, SocketSource
from edge_agent.core.refusal import EVENT_BYTES_MAX
from edge_agent.core.sources.offers import Outcome, Settled
from edge_agent.ports import PushSource, Put
from tests.edge_agent.producing import CONTRACT, TOKEN, App, HttpApp, Loop, SocketApp, connect
from tests.waiting import eventually


class Harness:
    """One kind of source with a loop behind it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "agent.sock"
        self._token_file = folder / "token"
        self._token_file.touch(mode=0o600)
        self._token_file.write_text(TOKEN + "\n")
        self.loop = Loop(self._open)
        self._apps: list[App] = []

    def _open(self, put: Put) -> PushSource:
        if self.kind == "socket":
            return open_pushed(SocketSource("apps", str(self.path), (CONTRACT,)), put)
        return open_pushed(HttpSource("apps", 0, (CONTRACT,), str(self._token_file)), put)

    def app(self, producer: str | None = "平板") -> App:
        """Return a producer on a connection of its own."""
        app: App
        if self.kind == "socket":
            app = SocketApp(self.path, producer)
        else:
            assert isinstance(self.loop.source, StreamServer)
            name = None if producer is None else "".join(f"%{byte:02X}" for byte in producer.encode())
            app = HttpApp(self.loop.source.port, name)
        self._apps.append(app)
        return app

    def close(self) -> None:
        for app in self._apps:
            app.close()
        self.loop.close()


@pytest.fixture(params=["socket", "http"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(request.param, tmp_path)
    yield harness
    harness.close()


def events(first: int, end: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(first, end)]


def test_events_are_acknowledged_when_they_are_durable_and_not_before(harness: Harness) -> None:
    loop, app = harness.loop, harness.app()
    app.send(0, events(0, 3))
    assert app.answer().taken == 3
    loop.writes.clear()
    before = loop.admitted
    app.send(3, events(3, 5))
    eventually(lambda: loop.admitted > before, "the events are admitted")
    assert not app.is_answered()
    loop.writes.set()
    assert app.answer().taken == 5
    assert loop.durable == events(0, 5)


def test_what_is_sent_again_is_there_once(harness: Harness) -> None:
    app = harness.app()
    app.send(0, events(0, 3))
    app.answer()
    app.send(1, events(1, 5))
    answer = app.answer()
    assert answer.taken == 5
    assert answer.get("duplicate", 2) == 2
    assert harness.loop.durable == events(0, 5)


@pytest.mark.parametrize("gate", ["admits", "writes", "settles"])
def test_a_crash_before_the_answer_costs_and_doubles_nothing(harness: Harness, gate: str) -> None:
    loop, app = harness.loop, harness.app()
    app.send(0, events(0, 2))
    app.answer()
    offered = len(loop.offered)
    getattr(loop, gate).clear()
    app.send(2, events(2, 6))
    eventually(lambda: len(loop.offered) > offered, "the events are offered")
    eventually(lambda: loop.written > offered if gate == "settles" else True, "the events are durable")
    loop.crash()
    again = harness.app()
    again.send(2, events(2, 6))
    assert again.answer().taken == 6
    assert loop.durable == events(0, 6)


def test_two_that_send_the_same_at_once_are_both_told_only_when_it_is_durable(harness: Harness) -> None:
    loop = harness.loop
    first, second = harness.app(), harness.app()
    for app in (first, second):
        app.greet(0)
    loop.writes.clear()
    first.send(0, events(0, 4))
    eventually(lambda: any(offered.lines for offered in loop.offered), "the first is offered")
    second.send(0, events(0, 4))
    assert not first.is_answered()
    assert not second.is_answered()
    loop.writes.set()
    assert [first.answer().taken, second.answer().taken] == [4, 4]
    assert loop.durable == events(0, 4)


def test_a_gap_is_refused_and_says_where_to_go_on(harness: Harness) -> None:
    app = harness.app()
    app.send(0, events(0, 3))
    app.answer()
    app.send(7, events(7, 9))
    answer = app.answer()
    assert (answer["error"], answer["next"], answer.get("status", 409)) == ("number_gap", 3, 409)
    assert "expected number 3, found 7" in answer["message"]
    again = harness.app()
    again.send(3, events(3, 9))
    assert again.answer().taken == 9
    assert harness.loop.durable == events(0, 9)


def test_an_agent_that_is_full_says_so_and_takes_the_same_later(harness: Harness) -> None:
    app = harness.app()
    app.send(0, events(0, 1))
    app.answer()
    harness.loop.is_full = True
    app.send(1, events(1, 3))
    answer = app.answer()
    assert (answer["error"], answer.get("status", 503)) == ("busy", 503)
    harness.loop.is_full = False
    again = harness.app()
    again.send(1, events(1, 3))
    assert again.answer().taken == 3
    assert harness.loop.durable == events(0, 3)


def test_lines_are_events_whatever_is_in_them(harness: Harness) -> None:
    lines = [b'{"n":1}\r', b"", b"\xff\xfe not text", '{"名":"设备"}'.encode(), b"x" * (EVENT_BYTES_MAX + 5), b"{}"]
    app = harness.app()
    app.send(0, lines)
    assert app.answer().taken == 6
    assert harness.loop.durable == [*lines[:4], b"x" * (EVENT_BYTES_MAX + 1), b"{}"]


def test_producers_without_a_name_are_taken_at_their_word(harness: Harness) -> None:
    app = harness.app(None)
    app.send(0, events(0, 2))
    app.answer()
    again = harness.app(None)
    again.send(0, events(0, 2))
    again.answer()
    assert harness.loop.durable == events(0, 2) * 2


def test_each_producer_has_numbers_of_its_own(harness: Harness) -> None:
    one, other = harness.app("one"), harness.app("other")
    one.send(0, events(0, 2))
    one.answer()
    other.send(5, events(5, 7))
    assert other.answer().taken == 7
    assert harness.loop.durable == [*events(0, 2), *events(5, 7)]


def test_what_is_cut_off_is_no_event(harness: Harness) -> None:
    if harness.kind == "socket":
        sock = connect(harness.path)
        sock.sendall(b'{"hello":1,"contract":"clicks"}\n{"n":1}\n{"n":2')
        whole = events(1, 2)
    else:
        import socket

        assert isinstance(harness.loop.source, StreamServer)
        sock = socket.create_connection(("127.0.0.1", harness.loop.source.port))
        head = f"POST /v1/events/{CONTRACT} HTTP/1.1\r\nHost: localhost:{harness.loop.source.port}\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\nContent-Type: application/x-ndjson\r\nContent-Length: 20\r\n\r\n"
        sock.sendall(head.encode() + b'{"n":1}\n{"n":2')
        whole = []
    sock.close()
    app = harness.app()
    app.send(0, events(5, 6))  # whoever comes next is served
    app.answer()
    eventually(lambda: sorted(harness.loop.durable) == sorted([*whole, *events(5, 6)]), "whole events are there")


@pytest.mark.parametrize("harness", ["socket"], indirect=True)
def test_a_flood_is_held_up_at_the_limits_and_loses_nothing(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "RECEIVE_BYTES", 1_000)
    monkeypatch.setattr(stream_server, "CONNECTION_EVENTS_MAX", 500)
    monkeypatch.setattr(stream_server, "EVENTS_MAX", 900)
    loop = harness.loop
    loop.crash()  # into these limits
    apps = [harness.app(f"app-{number}") for number in range(3)]
    wanted = [[b'{"app":%d,"n":%d}' % (app, number) for number in range(2_000)] for app in range(3)]
    for app in apps:
        app.greet(0)
    loop.admits.clear()
    for app, lines in zip(apps, wanted, strict=True):
        app.send(0, lines)
    eventually(lambda: loop.unanswered >= 900, "the source is full")
    loop.admits.set()
    assert [app.answer().taken for app in apps] == [2_000] * 3
    assert loop.peak <= 900 + 3 * 1_000 // len(wanted[0][0])
    assert sorted(loop.durable) == sorted(line for lines in wanted for line in lines)


@pytest.mark.parametrize("harness", ["http"], indirect=True)
def test_requests_beyond_the_limit_are_told_to_come_again(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "EVENTS_MAX", 150)
    loop = harness.loop
    loop.writes.clear()
    first, second, third = (harness.app(name) for name in ("first", "second", "third"))
    for number, app in enumerate((first, second), 1):
        app.send(0, events(0, 100))
        eventually(lambda until=number * 100: loop.unanswered == until, "the events are offered")
    third.send(0, events(0, 100))
    answer = third.answer()
    assert (answer["status"], answer["error"]) == (429, "too_much_unanswered")
    loop.writes.set()
    assert [first.answer().taken, second.answer().taken] == [100, 100]
    third.send(0, events(0, 100))
    assert third.answer().taken == 100
    assert loop.durable == events(0, 100) * 3


def test_too_many_connections_are_told_so(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "CONNECTIONS_MAX", 1)
    first = harness.app()
    first.send(0, events(0, 1))
    first.answer()
    second = harness.app("second")
    if harness.kind == "socket":
        second.greet(0)
        assert isinstance(second, SocketApp)
        assert second.welcome["error"] == "too_many_connections"
    else:
        second.send(0, events(0, 1))
        assert second.answer()["status"] == 503
    first.close()
    third = harness.app("third")

    def served() -> bool:
        third.close()
        third.greet(1)
        if isinstance(third, SocketApp) and "error" in third.welcome:
            return False
        third.send(1, events(1, 2))
        return third.answer().taken == 2

    eventually(served, "a place is free again")


def test_what_was_settled_before_the_end_is_still_acknowledged(harness: Harness) -> None:
    loop, app = harness.loop, harness.app()
    app.greet(0)
    loop.settles.clear()
    app.send(0, events(0, 3))
    eventually(lambda: bool(loop.durable), "the events are durable")
    loop.source.settle(loop.offered[-1].ticket, Settled(Outcome.TAKEN, accepted=3, next_number=3))
    loop.source.close()
    assert app.answer().taken == 3


def test_a_source_leaves_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    for kind in ("socket", "http"):
        folder = tmp_path / kind
        folder.mkdir()
        before = len(os.listdir("/proc/self/fd"))
        harness = Harness(kind, folder)
        app = harness.app()
        app.send(0, events(0, 1))
        app.answer()
        harness.close()
        assert len(os.listdir("/proc/self/fd")) == before
