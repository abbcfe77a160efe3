"""An agent process that is handed events, killed again and again: what an app was told is there, once."""

import signal
import threading
from functools import partial
from pathlib import Path

import pytest

from edge_agent.client import Handover, HttpHandover, Sent, SocketHandover, send_file
from tests.edge_agent.plant import AgentProcess, LakeClient, free_port, lines_of, reading
from tests.waiting import eventually

pytestmark = pytest.mark.stack

EVENTS = 60_000
TOKEN = "0123456789abcdef-pushed"


class App(threading.Thread):
    """An app that hands a file over, and tries again for as long as it takes."""

    def __init__(self, file: Path, connect: "type[SocketHandover] | type[HttpHandover]", *arguments: object) -> None:
        super().__init__(daemon=True)
        self.sent: Sent | None = None
        self._file = file
        self._pause = threading.Event()

        def handover() -> Handover:
            return connect(*arguments)  # type: ignore[arg-type]

        self._connect = handover

    def run(self) -> None:
        self.sent = send_file(self._file, self._connect, lambda _wait_s: self._pause.wait(0.2) or None)


@pytest.fixture
def pushed(agent: AgentProcess, tmp_path: Path) -> tuple[AgentProcess, int, Path]:
    """An agent with a socket for telemetry and HTTP for clicks; the port and the token's file."""
    port, token_file = free_port(), tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    agent.config["until_drained"] = False
    agent.config["sources"] = [
        {"kind": "socket", "name": "apps", "path": str(tmp_path / "agent.sock"), "contracts": ["telemetry"]},
        {"kind": "http", "name": "web", "port": port, "contracts": ["clicks"], "token_file": str(token_file)},
    ]
    return agent, port, token_file


def click(seq: int) -> dict[str, object]:
    moment = f"2026-01-01T00:{seq // 60 % 60:02d}:{seq % 60:02d}Z"
    return {"user_id": f"访客-{seq % 7}", "session_id": str(seq // 10), "event": "page", "occurred_at": moment}


def more_than(agent: AgentProcess, known: int) -> int | None:
    observed = agent.observed("telemetry")
    return observed if observed > known or observed == EVENTS else None


def has_all(agent: AgentProcess, stream: str) -> bool:
    streams = agent.status().get("streams", {})
    return bool(streams.get(stream, {}).get("committed_upto", 0) == EVENTS)


def test_events_handed_over_while_the_agent_is_killed_arrive_once(
    pushed: tuple[AgentProcess, int, Path], lake: LakeClient, tmp_path: Path
) -> None:
    agent, port, token_file = pushed
    readings, clicks = tmp_path / "readings.jsonl", tmp_path / "clicks.jsonl"
    readings.write_bytes(b"\n".join(lines_of([reading(seq) for seq in range(EVENTS)])) + b"\n")
    clicks.write_bytes(b"\n".join(lines_of([click(seq) for seq in range(EVENTS)])) + b"\n")
    agent.start()
    apps = [
        App(readings, SocketHandover, tmp_path / "agent.sock", "telemetry", "记录仪"),
        App(clicks, HttpHandover, f"http://127.0.0.1:{port}", token_file, "clicks", "网页"),
    ]
    for app in apps:
        app.start()
    seen = 0
    for _ in range(3):
        seen = eventually(partial(more_than, agent, seen), "more readings were taken")
        agent.kill()
        agent.status_file.unlink()
        agent.start()
    for app in apps:
        app.join(60.0)
        assert app.sent is not None, agent.log()
        assert app.sent.events == EVENTS
    for name in ("telemetry", "clicks"):
        eventually(partial(has_all, agent, name), f"the lake has all of {name}")
    agent.signal(signal.SIGTERM)
    code, report = agent.wait()
    assert (code, report["unexplained"]) == (0, 0), agent.log()
    for name in ("telemetry", "clicks"):
        assert report["streams"][name]["observed"] == report["streams"][name]["kept"] == EVENTS
        assert [row["seq"] for row in lake.lake.rows(name)] == list(range(EVENTS))
    assert [row["user_id"] for row in lake.lake.rows("clicks")] == [f"访客-{seq % 7}" for seq in range(EVENTS)]
