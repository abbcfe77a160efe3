"""Fixtures of the lakehouse tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from lakehouse.publish import publish_contracts
from tests.lakehouse.frames import CONTRACTS
from tests.lakehouse.plant import Plant, Service
from tests.lakehouse.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Log in memory, catalogs on SQLite, the usual contracts published."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A real log, database and both stores, with the shipped contracts published."""
    # Two runs at once take different ports.
    made = Plant(tmp_path_factory.mktemp("lake"), Random(os.getpid()))
    try:
        made.start()
        publish_contracts(made.config.kafka_bootstrap, CONTRACTS.values(), {})
        yield made
    finally:
        made.close()


@pytest.fixture
def ingest(plant: Plant, tmp_path: Path) -> Iterator[Service]:
    """An ingest process that is not started yet."""
    service = Service("lakehouse", tmp_path, plant.config)
    yield service
    service.stop()


@pytest.fixture
def maintenance(plant: Plant, tmp_path: Path) -> Iterator[Service]:
    """A maintenance process that is not started yet, with passes in quick succession."""
    service = Service("lakehouse.maintenance", tmp_path, replace(plant.config, maintenance_interval_ms=500))
    yield service
    service.stop()
