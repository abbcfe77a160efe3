"""An agent that runs, as the person on its device sees it: over a broker of one's own and a lake behind it."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.__main__ import main
from edge_agent.core.metrics import AGENT_METRICS
from edge_agent.version import AGENT_VERSION
from tests.edge_agent.plant import (
    CONTRACTS,
    AgentProcess,
    Broker,
    Certificates,
    Json,
    Lake,
    LakeClient,
    bundle_of,
    contract,
    lines_of,
    reading,
)
from tests.waiting import eventually

pytestmark = pytest.mark.stack

WITH_METRICS = {**CONTRACTS, AGENT_METRICS: contract(AGENT_METRICS)}
MARKER = "Gh7-机密-3141"  # in events only; must not be in any log


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that follows a file and writes metrics as often as it may."""
    bundle = msgspec.structs.replace(bundle_of(windows=False), contracts=tuple(WITH_METRICS.values()))
    agent = AgentProcess(tmp_path, broker, bundle)
    Path(agent.config["mqtt"]["key_file"]).chmod(0o600)
    agent.config["sources"][0]["follow"] = True
    agent.config["spool"] = {"quota_bytes": 2**24, "ring_bytes": 2**20}
    agent.config |= {"until_drained": False, "metrics_interval_s": 10.0, "log_file": str(tmp_path / "own.log")}
    yield agent
    agent.kill()


@pytest.fixture
def lake(broker: Broker, agent: AgentProcess) -> Iterator[LakeClient]:
    client = LakeClient(broker, Lake(agent.device, WITH_METRICS))
    yield client
    client.close()


def ask(agent: AgentProcess, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Json]:
    """Ask one of the commands; return its exit code and its JSON."""
    capsys.readouterr()
    code = main([words[0], "--config", str(agent.folder / "agent.json"), "--json", *words[1:]])
    return code, json.loads(capsys.readouterr().out)


def append(agent: AgentProcess, lines: list[bytes]) -> None:
    with agent.source_file.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def levels(said: Json) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in said["findings"]}


def test_an_agent_is_looked_at_while_it_runs_and_after(
    agent: AgentProcess, lake: LakeClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(agent.folder / "notify")
        manager.bind(address)
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        append(agent, lines_of([reading(seq) for seq in range(200)]))
        bad = [b'{"asset_id":"%b"' % MARKER.encode(), *lines_of([reading(1, f1=MARKER) for _ in range(50)])]
        append(agent, bad)
        agent.start()
        assert manager.recv(4_096).startswith(b"READY=1\nWATCHDOG=1\nSTATUS=link ")
        assert manager.recv(4_096).startswith(b"WATCHDOG=1\nSTATUS=")
    eventually(lambda: agent.status().get("link") == "up" and len(lake.lake.rows("telemetry")) == 200, "rows arrive")
    eventually(lambda: agent.status()["health"]["lag_events"] == 0, "the lake has everything")

    code, said = ask(agent, capsys, "status")
    assert code == 0, said
    assert (said["runs"], said["healthy"], levels(said)["link"], levels(said)["ledger"]) == (True, True, "ok", "ok")
    assert said["report"]["health"]["agent_version"] == AGENT_VERSION

    code, said = ask(agent, capsys, "doctor")
    found = levels(said)
    assert (found["broker"], found["malloc"], found["spool"]) == ("ok", "ok", "skipped"), said
    assert agent.status()["link"] == "up"  # the doctor did not take its session

    eventually(lambda: len(lake.lake.rows(AGENT_METRICS)) >= 1, "a row of metrics arrives")
    row = lake.lake.rows(AGENT_METRICS)[0]
    assert (row["observed"], row["reconnects"], row["agent_version"]) == (251, 1, AGENT_VERSION)
    assert (row["bundle_version"], row["ladder_step"], row["held_batches"]) == ("1", "none", 0)
    assert row["pss_bytes"] > 10_000_000
    assert row["cpu_ms"] > 0
    assert 0 < row["flush_p50_us"] <= row["flush_p99_us"]

    agent.signal(signal.SIGTERM)
    exit_code, ledger = agent.wait()
    assert exit_code == 0
    assert ledger["streams"][AGENT_METRICS]["observed"] == len(lake.lake.rows(AGENT_METRICS))
    logged = agent.log() + Path(agent.config["log_file"]).read_text()
    assert "connected" in logged
    assert MARKER[:4] not in logged

    code, said = ask(agent, capsys, "status")
    assert (code, said["runs"], levels(said)["process"]) == (1, False, "bad")
    code, said = ask(agent, capsys, "doctor")
    found = levels(said)
    assert (found["broker"], found["spool"]) == ("ok", "ok"), said
    assert code == 0


def test_a_device_that_the_broker_does_not_know_is_told_so(
    agent: AgentProcess, broker: Broker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    cert_file, key_file = Certificates(stranger).issue(agent.device)
    key_file.chmod(0o600)
    agent.config["mqtt"] |= {"cert_file": str(cert_file), "key_file": str(key_file)}
    (agent.folder / "agent.json").write_text(json.dumps(agent.config))
    append(agent, lines_of([reading(0)]))
    code, said = ask(agent, capsys, "doctor")
    assert (code, levels(said)["broker"]) == (1, "bad"), said
