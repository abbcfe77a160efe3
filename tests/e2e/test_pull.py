"""`fieldlake pull` on the whole stack: what a device has dropped arrives in the lake when somebody asks for it."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edge_agent.config import AgentConfig, FileSource
from infra.cli.main import run
from infra.demo.material import Material
from infra.demo.tables import LakeReader
from infra.fleet.agent import AgentProcess, Replay, prepare
from infra.launcher.endpoints import Endpoints
from tests.waiting import eventually

pytestmark = pytest.mark.stack

EVENTS = 2_000


@pytest.fixture
def lines(material: Material) -> list[bytes]:
    entry = next(e for e in material.manifest.files if e.role == "replay" and e.contract == "telemetry")
    return (material.datasets_dir / entry.path).read_bytes().splitlines()[:EVENTS]


@pytest.fixture
def agent(
    endpoints: Endpoints, material: Material, device_name: str, lines: list[bytes], tmp_path: Path
) -> Iterator[AgentProcess]:
    """A device that goes on running, so that it can be asked."""
    source = tmp_path / "readings.jsonl"
    source.write_bytes(b"\n".join(lines) + b"\n")
    path = prepare(endpoints, material.bundle_dir, Replay(device_name, "telemetry", source))
    config = msgspec.json.decode(path.read_bytes(), type=AgentConfig)
    followed = tuple(replace(one, follow=True) for one in config.sources if isinstance(one, FileSource))
    path.write_bytes(msgspec.json.encode(replace(config, sources=followed, until_drained=False)))
    agent = AgentProcess(path)
    agent.start()
    yield agent
    agent.terminate(10.0)


def test_what_was_dropped_arrives_when_it_is_asked_for(
    endpoints: Endpoints,
    agent: AgentProcess,
    device_name: str,
    lines: list[bytes],
    lake: LakeReader,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stack = ["--state-dir", endpoints.state_dir, "--port-base", str(endpoints.port_base)]

    def observed() -> bool:
        streams = agent.status().get("streams", {})
        return bool(streams.get("telemetry", {}).get("observed") == len(lines))

    eventually(observed, "the device has seen all events")
    events = [json.loads(line) for line in lines]
    times = sorted(dt.datetime.fromisoformat(event["occurred_at"]) for event in events)
    first, end = times[0].isoformat(), (times[-1] + dt.timedelta(seconds=1)).isoformat()
    middle = sorted(event["f1"] for event in events)[len(events) // 2]
    where = json.dumps({"test": "compare", "field": "f1", "op": "ge", "value": middle})
    code = run(["pull", device_name, "--from", first, "--to", end, "--where", where, "--json", *stack])
    said = capsys.readouterr()
    assert code == 0, said.err
    answer = json.loads(said.out)
    expected = [seq for seq, event in enumerate(events) if event["f1"] >= middle]
    assert (answer["outcome"], answer["sent"], answer["missing"]) == ("answered", len(expected), 0)
    assert answer["examined"] == len(events)
    rows = [
        row
        for row in lake.read("lake_a", "field.telemetry_pulled").to_pylist()
        if (row["origin"], row["pull_id"]) == (device_name, answer["pull"])
    ]
    assert sorted(row["source_seq"] for row in rows) == expected
    assert {row["fate"] for row in rows} > {"kept"}
    assert run(["sql", answer["sql"], "--format", "json", *stack]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(expected)


def test_a_device_that_nobody_knows_cannot_be_asked(endpoints: Endpoints, capsys: pytest.CaptureFixture[str]) -> None:
    stack = ["--state-dir", endpoints.state_dir, "--port-base", str(endpoints.port_base)]
    code = run(["pull", "nobody-77", "--from", "2026-03-01T00:00:00Z", "--to", "2026-03-01T01:00:00Z", *stack])
    assert code == 1
    assert "registry has none of that name" in capsys.readouterr().err
