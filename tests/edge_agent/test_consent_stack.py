"""An agent process on a tablet: people's events before and after they have decided, and what its folder holds."""

import contextlib
import json
import signal
import socket
from pathlib import Path

import pytest

from edge_agent.adapters.cipher import open_key
from edge_agent.client import SocketHandover, decide_by_http, decide_by_socket
from edge_agent.core.consent.person_keys import PREFIX
from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.errors import HandoverError
from infra.cli.main import run
from tests.edge_agent.consenting import assert_hidden, line_of, visit
from tests.edge_agent.plant import AgentProcess, Json, LakeClient, free_port
from tests.edge_agent.worlds import MemoryDisk
from tests.waiting import eventually

pytestmark = pytest.mark.stack

TOKEN = "0123456789abcdef-consent"
ANNA, BO, CHEN = "anna-Ångström-7f3", "bo-Müller-91c", "陈-5d2"


@pytest.fixture
def tablet(agent: AgentProcess, tmp_path: Path) -> AgentProcess:
    """An agent with a socket and HTTP for visits, started."""
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    agent.config["until_drained"] = False
    agent.config["spool"] = {"key_file": str(tmp_path / "keys" / "device.key")}
    agent.config["sources"] = [
        {"kind": "socket", "name": "apps", "path": str(tmp_path / "agent.sock"), "contracts": ["visits"]},
        {"kind": "http", "name": "web", "port": free_port(), "contracts": ["visits"], "token_file": str(token_file)},
    ]
    start(agent)
    return agent


def start(agent: AgentProcess) -> None:
    socket_of(agent).unlink(missing_ok=True)  # of one that was killed
    agent.start()
    eventually(lambda: socket_of(agent).exists() or None, lambda: f"the agent listens: {agent.log()}")


def socket_of(agent: AgentProcess) -> Path:
    return Path(agent.config["sources"][0]["path"])


def send(agent: AgentProcess, first: int, events: list[Json]) -> list[Json]:
    """Hand events over under numbers from `first` on, and return the agent's last answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(30.0)
        sock.connect(str(socket_of(agent)))
        hello = {"hello": 1, "contract": "visits", "producer": ANNA, "first": first}
        sock.sendall(b"".join(line_of(event) + b"\n" for event in (hello, *events)))
        lines = sock.makefile("rb")
        answers = [json.loads(next(lines))]
        while answers[-1].get("held", answers[-1].get("ack")) != first + len(events):
            answers.append(json.loads(next(lines)))
        return answers


def disk_of(agent: AgentProcess) -> MemoryDisk:
    """Return the agent's folder, log and status as they are now."""
    files: dict[str, bytes] = {}
    for path in agent.spool_dir.iterdir():
        with contextlib.suppress(FileNotFoundError):  # the agent works on: a file was replaced since it was listed
            files[path.name] = path.read_bytes() if path.name != "reserve" else b""
    status = agent.status_file.read_bytes() if agent.status_file.exists() else b""
    return MemoryDisk(files | {"agent.log": agent.log().encode(), "status.json": status})


def hidden(agent: AgentProcess, *persons: str) -> None:
    assert_hidden(disk_of(agent), persons, open_key(Path(agent.config["spool"]["key_file"])))


def test_what_people_decide_holds_for_all_that_the_agent_has(tablet: AgentProcess, lake: LakeClient) -> None:
    people = [ANNA, BO, CHEN]
    lake.answers.clear()
    assert send(tablet, 0, [visit(seq, people[seq % 3]) for seq in range(300)])[-1] == {"ack": 0, "held": 300}
    hidden(tablet, *people)
    assert decide_by_socket(socket_of(tablet), "show", ANNA)["waiting"] == 100
    for person in (ANNA, BO):
        assert decide_by_socket(socket_of(tablet), "grant", person)["consent"] == "granted"
    web = tablet.config["sources"][1]
    eventually(lambda: len(lake.lake.rows("visits")) == 200 or None, "what had waited is sent")
    with pytest.raises(AssertionError):
        hidden(tablet, BO)  # granted: a key opens it
    tablet.kill()
    start(tablet)
    assert send(tablet, 0, [visit(seq, people[seq % 3]) for seq in range(300)])[-1]["ack"] == 2
    url = f"http://127.0.0.1:{web['port']}"
    answer = decide_by_http(url, Path(web["token_file"]), "refuse", BO)
    assert (answer["consent"], answer["decision"]) == ("refused", 3)
    hidden(tablet, BO, CHEN)
    assert len([name for name in disk_of(tablet).files if name.startswith(PREFIX)]) == 1
    assert run(["edge", "consent", "refuse", CHEN, "--socket", str(socket_of(tablet))]) == 0
    send(tablet, 300, [visit(seq, people[seq % 3]) for seq in range(300, 330)])
    hidden(tablet, BO, CHEN)
    lake.answers.set()
    lake.publish_ack()
    eventually(lambda: len(lake.lake.rows("consents")) == 4 or None, "the lake is told of all decisions")
    tablet.signal(signal.SIGTERM)
    code, report = tablet.wait()
    assert (code, report["unexplained"]) == (0, 0), tablet.log()
    hidden(tablet, BO, CHEN)
    rows = lake.lake.rows("visits")
    notes = {who: [row["note"] for row in rows if row["contact_id"] == who] for who in people}
    assert notes[ANNA] == [visit(seq, ANNA)["note"] for seq in range(0, 330, 3)]
    assert notes[BO] == [visit(seq, BO)["note"] for seq in range(1, 300, 3)]
    assert notes[CHEN] == []
    pseudonyms = Pseudonyms(open_key(Path(tablet.config["spool"]["key_file"])))
    told = [(row["person"], row["standing"], row["from_memory"]) for row in lake.lake.rows("consents")]
    assert told == [
        (pseudonyms.person(ANNA), "granted", 100),
        (pseudonyms.person(BO), "granted", 100),
        (pseudonyms.person(BO), "refused", 0),
        (pseudonyms.person(CHEN), "refused", 100),
    ]


def test_an_app_is_told_what_is_only_in_memory(tablet: AgentProcess) -> None:
    handover = SocketHandover(socket_of(tablet), "visits", "app")
    handover.send([line_of(visit(seq, ANNA)) for seq in range(5)])
    with pytest.raises(HandoverError, match="wait in memory until their persons have decided"):
        handover.finish()
    handover.close()
    assert decide_by_socket(socket_of(tablet), "grant", ANNA)["waiting"] == 0
    again = SocketHandover(socket_of(tablet), "visits", "app")
    assert again.known == 5
    again.close()
