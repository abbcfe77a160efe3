"""A broker, a lake behind it and an agent, for each test of the shells."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge_agent.plant import AgentProcess, Broker, Lake, LakeClient, bundle_of


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker."""
    broker = Broker(tmp_path_factory.mktemp("broker"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that is not started yet, without a model."""
    agent = AgentProcess(tmp_path, broker, bundle_of())
    yield agent
    agent.kill()


@pytest.fixture
def lake(broker: Broker, agent: AgentProcess) -> Iterator[LakeClient]:
    """A lake that takes what the agent sends."""
    client = LakeClient(broker, Lake(agent.device))
    yield client
    client.close()
