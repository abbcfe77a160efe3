"""The agent's process, a broker and the bundle server: what is published is tried on live events, and swapped in."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Bundle, Stream
from contracts.edge_rules import Compare, Drop, EdgeRule
from edge_agent.core.updates.rollout import LIMITS
from gateway.bundles.config import BundlesConfig
from gateway.bundles.server import BundlesStatus
from gateway.config import MqttConfig
from tests.edge_agent.plant import HOST, AgentProcess, Broker, Lake, LakeClient, bundle_of, free_port, lines_of, reading
from tests.edge_agent.supply import GROUP, Supply
from tests.edge_agent.swapping import WIDER
from tests.processes import OwnProcess
from tests.waiting import eventually

pytestmark = pytest.mark.stack

TRIAL_EVENTS = LIMITS.events_min


class Publisher:
    """Publishes bundles to the device's group; their streams have rules and windows, and no model."""

    def __init__(self, folder: Path) -> None:
        self.supply = Supply(folder)
        self._folder = folder / "source"

    def publish(self, version: str, *rules: EdgeRule, wider: bool = False) -> int:
        """Publish; return the release's number."""
        plain = bundle_of()
        contracts = tuple(WIDER if wider and c.id == "telemetry" else c for c in plain.contracts)
        streams: tuple[Stream, ...] = (replace(plain.streams[0], rules=rules),)
        bundle = Bundle(version, contracts, streams)
        self._folder.mkdir(exist_ok=True)
        (self._folder / BUNDLE_FILE).write_bytes(bundles.encode(bundle))
        return self.supply.repository.publish(GROUP, self._folder, "0").number


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    (tmp_path / "repository").mkdir()
    publisher = Publisher(tmp_path / "repository")
    publisher.publish("1")
    return publisher


@pytest.fixture
def server(tmp_path: Path, broker: Broker, publisher: Publisher) -> Iterator[str]:
    """The bundle server's address."""
    cert_file, key_file = broker.certificates.issue("lake")  # whom this broker lets write below `down`
    ca_file = str(broker.certificates.ca_file)
    folder = tmp_path / "server"
    folder.mkdir()
    config = BundlesConfig(
        HOST, free_port(), str(cert_file), str(key_file), ca_file, str(publisher.supply.served),
        str(folder / "groups.json"), str(folder / "seen.json"),
        MqttConfig(HOST, broker.port, ca_file, str(cert_file), str(key_file)),
    )  # fmt: skip
    process = OwnProcess(
        "gateway.bundles",
        folder,
        msgspec.json.encode(config),
        lambda data: msgspec.json.decode(data, type=BundlesStatus),
    )
    process.start()
    yield f"https://{HOST}:{config.port}"
    process.stop()


@pytest.fixture
def agent(tmp_path: Path, broker: Broker, server: str, publisher: Publisher) -> Iterator[AgentProcess]:
    """An agent that is not started yet; it gets its bundles from the server, and follows its source."""
    folder = tmp_path / "device"
    folder.mkdir()
    agent = AgentProcess(folder, broker, bundle_of())
    root_file = folder / "root.json"
    root_file.write_bytes(publisher.supply.repository.root())
    del agent.config["bundle_dir"]
    agent.config["bundles"] = {
        "kind": "repository", "url": server, "root_file": str(root_file), "bundles_dir": str(folder / "bundles"),
    }  # fmt: skip
    agent.config["sources"][0] |= {"follow": True, "rate_events_per_s": 0}
    agent.config["until_drained"] = False
    agent.source_file.write_bytes(b"")
    yield agent
    agent.kill()


@pytest.fixture
def lake(broker: Broker, agent: AgentProcess) -> Iterator[LakeClient]:
    client = LakeClient(broker, Lake(agent.device, versions=(WIDER,)))
    yield client
    client.close()


def feed(agent: AgentProcess, first: int, events: int) -> None:
    with agent.source_file.open("ab") as file:
        file.write(b"\n".join(lines_of([reading(n) for n in range(first, first + events)])) + b"\n")


def state_of(agent: AgentProcess) -> tuple[int | None, str]:
    found = agent.status().get("bundle", {})
    return found.get("release"), found.get("state", "")


def test_what_is_published_is_tried_on_live_events_and_swapped_in_and_what_is_bad_is_not(
    agent: AgentProcess, lake: LakeClient, publisher: Publisher
) -> None:
    agent.start()
    eventually(lambda: state_of(agent) == (1, "idle"), lambda: f"the first release is in force: {agent.log()}")
    feed(agent, 0, 1_000)
    eventually(lambda: agent.observed("telemetry") == 1_000, "events are taken")

    # A good one: a wider contract, and a rule that drops a few.
    good = publisher.publish("2", EdgeRule("cold", 1, Drop(), Compare("f1", "lt", 3)), wider=True)
    eventually(lambda: state_of(agent) == (1, "shadow"), lambda: f"the second is on trial: {agent.log()}")
    feed(agent, 1_000, TRIAL_EVENTS)
    eventually(lambda: state_of(agent) == (good, "active"), lambda: f"it is swapped in: {agent.log()}")
    at = 1_000 + TRIAL_EVENTS
    feed(agent, at, 3_000)
    eventually(lambda: agent.observed("telemetry") == at + 3_000, "events are taken")
    assert agent.status()["streams"]["telemetry"]["dropped"] == {"cold@1|dropped_by_rule": 90}

    # It stays over a kill: the spool names it.
    agent.kill()
    agent.status_file.unlink()
    agent.start()
    eventually(lambda: state_of(agent) == (good, "active"), lambda: f"it is in force after a kill: {agent.log()}")

    agent.signal(signal.SIGTERM)
    code, report = agent.wait()
    assert (code, report["unexplained"]) == (0, 0)
    bundles_dir = Path(agent.config["bundles"]["bundles_dir"])
    assert (bundles_dir / "active").readlink() == Path(str(good))

    # A bad one, once the probation of the one before is over: it would lose most of what is kept.
    rollout = json.loads((bundles_dir / "rollout.json").read_text())
    assert rollout["state"] == "active"
    (bundles_dir / "rollout.json").unlink()
    bad = publisher.publish("3", EdgeRule("most", 1, Drop(), Compare("f1", "lt", 60)), wider=True)
    agent.start()
    eventually(lambda: state_of(agent) == (good, "shadow"), lambda: f"the third is on trial: {agent.log()}")
    feed(agent, at + 3_000, 2_000)
    eventually(lambda: state_of(agent) == (good, "rolled_back"), lambda: f"the third is refused: {agent.log()}")
    why = agent.status()["bundle"]["why"]
    assert why.startswith(f"release {bad} refused after ")
    assert "of the kept events missed" in why
    eventually(lambda: (bundles_dir / "refused.json").exists(), "the refusal is on disk")
    assert [entry["release"] for entry in json.loads((bundles_dir / "refused.json").read_text())] == [bad]

    observed = at + 5_000
    eventually(lambda: agent.observed("telemetry") == observed, "all is taken")
    agent.signal(signal.SIGTERM)
    code, report = agent.wait()
    assert (code, report["unexplained"]) == (0, 0)
    assert report["streams"]["telemetry"]["dropped"] == {"cold@1|dropped_by_rule": 150}
    assert report["streams"]["telemetry"]["lost"] == 0
    eventually(lambda: len(lake.lake.rows("telemetry")) == observed - 150, "the lake has every kept row")
    kept = {row["seq"] for row in lake.lake.rows("telemetry")}
    swapped = 1_000 + TRIAL_EVENTS
    assert kept == {n for n in range(observed) if n < swapped or reading(n)["f1"] >= 3}
    windows = lake.lake.rows("telemetry_windows")
    assert {row["kept"] == row["count"] for row in windows} == {True}
