"""A pull over a real broker: asked while the device is away, answered by its process, through kill -9 of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.bundle import Bundle, Stream
from contracts.edge_rules import Compare, Drop, EdgeRule
from gateway.config import MqttConfig
from gateway.pulls import PullDesk
from tests.edge_agent.plant import HOST, AgentProcess, Broker, Lake, LakeClient, bundle_of, lines_of, reading
from tests.edge_agent.pulling import ALL, ID, request
from tests.waiting import eventually

pytestmark = pytest.mark.stack

EVENTS = 30_000
HOT = Compare("f1", "ge", 50)


def pullable() -> Bundle:
    """Return a bundle that drops half of the events, and lets all of them be pulled."""
    plain = bundle_of()
    stream = Stream("telemetry", windows=plain.streams[0].windows, rules=(EdgeRule("hot", 1, Drop(), HOT),))
    return replace(plain, contracts=tuple(ALL.values()), streams=(stream,))


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[AgentProcess]:
    agent = AgentProcess(tmp_path, broker, pullable())
    agent.source_file.write_bytes(b"\n".join(lines_of([reading(seq) for seq in range(EVENTS)])) + b"\n")
    agent.config["sources"][0]["follow"] = True
    agent.config["until_drained"] = False
    yield agent
    agent.kill()


@pytest.fixture
def lake(broker: Broker, agent: AgentProcess) -> Iterator[LakeClient]:
    client = LakeClient(broker, Lake(agent.device, ALL))
    yield client
    client.close()


@pytest.fixture
def desk(broker: Broker, agent: AgentProcess) -> Iterator[PullDesk]:
    cert_file, key_file = broker.certificates.issue("lake")
    config = MqttConfig(HOST, broker.port, str(broker.certificates.ca_file), str(cert_file), str(key_file))
    with PullDesk(config, "desk", agent.device) as desk:
        yield desk


def is_settled(agent: AgentProcess) -> bool:
    status = agent.status()
    return bool(status.get("pending_batches") == 0 and agent.observed("telemetry") == EVENTS)


def test_a_pull_waits_for_its_device_and_brings_every_event_once(
    agent: AgentProcess, lake: LakeClient, desk: PullDesk
) -> None:
    agent.start()
    eventually(lambda: is_settled(agent), "the lake has what travels")
    assert desk.is_online is True
    agent.kill()
    eventually(lambda: desk.is_online is False, "the broker says that the device is away")
    asked = request(1_000, 29_000)
    desk.ask(asked, asked.asked_at_ms)
    agent.start()
    eventually(lambda: len(lake.lake.rows("telemetry_pulled")) > 0, "the first rows arrive")
    agent.kill()
    agent.start()
    (answer,) = eventually(lambda: lake.lake.rows("pulls") or None, "the answer")
    eventually(lambda: len(lake.lake.rows("telemetry_pulled")) == answer["sent"], "its rows")
    rows = lake.lake.rows("telemetry_pulled")
    assert sorted(row["source_seq"] for row in rows) == list(range(1_000, 29_000))
    assert {row["fate"] for row in rows} == {"kept", "dropped"}
    assert all((row["f1"] >= HOT.value) == (row["fate"] == "dropped") for row in rows)
    assert (answer["pull_id"], answer["outcome"], answer["missing"]) == (ID, "answered", 0)
    other = replace(request(0, 100, HOT), id="2" * 16)
    desk.ask(other, other.asked_at_ms)
    eventually(lambda: len(lake.lake.rows("pulls")) == 2, "a pull over the live connection is answered")
    assert [row["pull_id"] for row in lake.lake.rows("pulls")] == [ID, other.id]  # the first one not again
    hot = [seq for seq in range(100) if reading(seq)["f1"] >= 50]
    eventually(lambda: [r["source_seq"] for r in lake.lake.rows("telemetry_pulled")[28_000:]] == hot, "its rows")


def test_a_request_that_was_taken_back_reaches_nobody(agent: AgentProcess, lake: LakeClient, desk: PullDesk) -> None:
    asked, other = request(0, 10), replace(request(0, 10), id="3" * 16)
    desk.ask(asked, asked.asked_at_ms)
    desk.withdraw(asked.id)
    desk.ask(other, other.asked_at_ms)
    agent.start()
    eventually(lambda: lake.lake.rows("pulls") or None, "the other is answered")
    assert [row["pull_id"] for row in lake.lake.rows("pulls")] == [other.id]
