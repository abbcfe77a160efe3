"""An app's file goes to the agent, whatever happens between the two."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import client
from edge_agent.adapters import stream_server
from edge_agent.client import Handover, HttpHandover, SocketHandover, producer_of, send_file
from edge_agent.errors import HandoverError, RefusedError
from infra.cli.main import run
from tests.edge_agent.producing import CONTRACT
from tests.edge_agent.test_push_sources import Harness

LINES = [b'{"n":%d,"text":"%s"}' % (number, b"x" * (number % 97)) for number in range(12_345)]


@pytest.fixture(params=["socket", "http"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(request.param, tmp_path)
    yield harness
    harness.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "现场.jsonl"
    path.write_bytes(b"\n".join(LINES) + b"\n")
    return path


def once_only(_pause_s: float) -> None:
    pytest.fail("it was tried again")


def connecting(harness: Harness, producer: str = "app", contract: str = CONTRACT) -> Callable[[], Handover]:
    """Return what opens a connection to the source as it is at that time."""

    def connect() -> Handover:
        if harness.kind == "socket":
            return SocketHandover(harness.path, contract, producer)
        assert isinstance(harness.loop.source, stream_server.StreamServer)
        url = f"http://127.0.0.1:{harness.loop.source.port}"
        return HttpHandover(url, harness.path.with_name("token"), contract, producer)

    return connect


def test_a_file_is_handed_over_and_a_second_time_not(harness: Harness, file: Path) -> None:
    connect = connecting(harness, producer_of(file))
    assert send_file(file, connect, lambda _: None) == client.Sent(len(LINES), 0)
    assert harness.loop.durable == LINES
    assert send_file(file, connect, lambda _: None) == client.Sent(len(LINES), len(LINES))
    with file.open("ab") as opened:
        opened.write(b"one\nmore")
    assert send_file(file, connect, lambda _: None) == client.Sent(len(LINES) + 2, len(LINES))
    assert harness.loop.durable == [*LINES, b"one", b"more"]


def test_agents_that_crash_and_are_full_cost_and_double_nothing(
    harness: Harness, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "CHUNK_EVENTS", 100)
    chance = random.Random(7)
    connect = connecting(harness)
    loop = harness.loop

    class Unlucky:
        """A connection after some of whose chunks the agent dies or is full."""

        def __init__(self) -> None:
            loop.is_full = False
            self._inner = connect()
            self.known = self._inner.known

        def send(self, lines: list[bytes]) -> int:
            event = chance.random()
            if event < 0.05:
                loop.crash()
            loop.is_full = 0.05 <= event < 0.1
            return self._inner.send(lines)

        def finish(self) -> int:
            return self._inner.finish()

        def close(self) -> None:
            self._inner.close()

    assert send_file(file, Unlucky, lambda _: None).events == len(LINES)
    assert loop.durable == LINES


def test_an_agent_that_takes_nothing_is_given_up(harness: Harness, file: Path) -> None:
    pauses: list[float] = []
    harness.loop.is_full = True
    with pytest.raises(HandoverError, match=r"0 events are taken; send it again"):
        send_file(file, connecting(harness), pauses.append)
    assert len(pauses) == client.TRIES_MAX - 1


def test_what_an_agent_refuses_is_not_tried_again(harness: Harness, file: Path) -> None:
    with pytest.raises(RefusedError, match=r"unknown_contract|not_found"):
        send_file(file, connecting(harness, contract="nope"), once_only)


def test_a_shorter_file_is_another_file(harness: Harness, file: Path) -> None:
    send_file(file, connecting(harness), once_only)
    file.write_bytes(b"1\n")
    with pytest.raises(RefusedError, match="the file has less"):
        send_file(file, connecting(harness), once_only)


def test_nobody_there_is_said(tmp_path: Path, file: Path) -> None:
    with pytest.raises(HandoverError, match="No such file"):
        send_file(file, lambda: SocketHandover(tmp_path / "none", CONTRACT, "app"), lambda _: None)


def test_the_command_hands_a_file_over(harness: Harness, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    way = ["--socket", str(harness.path)]
    if harness.kind == "http":
        assert isinstance(harness.loop.source, stream_server.StreamServer)
        url = f"http://localhost:{harness.loop.source.port}"
        way = ["--url", url, "--token-file", str(harness.path.with_name("token"))]
    assert run(["edge", "send", CONTRACT, str(file), *way]) == 0
    assert "12345 events taken, 0 of them before, producer '现场.jsonl " in capsys.readouterr().out
    assert harness.loop.durable == LINES


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ([], "expected --socket, or --url with --token-file"),
        (["--url", "http://127.0.0.1:1"], "expected --socket, or --url with --token-file"),
        (["--url", "http://127.0.0.1:1", "--token-file", "t", "--socket", "s"], "expected --socket"),
    ],
)
def test_a_command_that_names_no_agent_is_told_how(
    way: list[str], said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["edge", "send", CONTRACT, str(file), *way]) == 2
    assert said in capsys.readouterr().err
