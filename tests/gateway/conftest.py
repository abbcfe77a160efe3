"""The plant (broker and log) once per session; a gateway with a shard, and devices, per test."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest

from tests.gateway.plant import Device, GatewayProcess, Plant

_SHARDS = count(1)  # a shard per test: sessions on the broker outlive a test


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A real broker and a real log."""
    plant = Plant(tmp_path_factory.mktemp("plant"), Random())
    try:
        plant.broker.start()
        plant.log.start()
        yield plant
    finally:
        plant.close()


@pytest.fixture
def shard() -> int:
    """A shard that no other test uses."""
    return next(_SHARDS)


@pytest.fixture
def gateway(plant: Plant, shard: int, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that is not started yet."""
    process = GatewayProcess(tmp_path, plant.gateway_config(shard))
    yield process
    process.stop()
    if process.log_file.exists():
        print(process.log_file.read_text())  # shown with a test that failed


@pytest.fixture
def connect(plant: Plant) -> Iterator[Callable[[str], Device]]:
    """A function that connects a device by name."""
    devices: list[Device] = []

    def connect_device(name: str) -> Device:
        devices.append(Device(plant, name))
        return devices[-1]

    yield connect_device
    for device in devices:
        device.close()
