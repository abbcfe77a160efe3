"""The bundle server as a part of the stack, with the broker alone: a device gets the stack's own bundle."""

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from edge_agent.updating.fetching import DeviceFetcher
from edge_agent.updating.run import Updating
from infra.bundles.local import publish_standard
from infra.cli.main import run
from infra.fleet.updating import updating_config
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.parts import services
from infra.launcher.ports import free_port_base
from infra.launcher.settings import StackSettings
from tests.edge_agent.supply import bundle_folder
from tests.identities import issue_identity

pytestmark = pytest.mark.stack


@pytest.fixture
def part() -> Iterator[Endpoints]:
    """The bundle server and the broker that it needs, and nothing else of the stack."""
    folder = Path(tempfile.mkdtemp(prefix="fieldlake-test-"))
    settings = StackSettings(state_dir=folder / "state", port_base=free_port_base(random.Random()))
    launcher = Launcher(settings)
    try:
        launcher.up(only=(services.BUNDLES,))
        yield read_endpoints(endpoints_file(settings))
    finally:
        launcher.down()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_device_of_the_stack_follows_what_the_command_line_publishes(part: Endpoints, tmp_path: Path) -> None:
    settings = part.settings()
    identity = issue_identity(settings, "press-01")
    config = updating_config(part, "press-01", identity, tmp_path / "bundles")

    def update() -> tuple[str, int | None]:
        verdict = Updating(config, DeviceFetcher(config, time.monotonic), datetime.now(UTC)).run()
        return verdict.reason or verdict.outcome, verdict.release

    assert update() == ("nothing_published", None)
    folder = bundle_folder(tmp_path / "bundle", "1")
    publish_standard(settings, folder)
    assert update() == ("activated", 1)
    place = ("--state-dir", str(settings.state_dir), "--port-base", str(settings.port_base))
    bundle_folder(folder, "2")
    assert run(["bundle", "publish", "default", str(folder), *place]) == 0
    assert update() == ("staged", 2)
    assert run(["bundle", "assign", "press-01", "canary", *place]) == 0
    assert update() == ("staged", 2)  # nothing new is asked for
    publish_standard(settings, bundle_folder(folder, "3"))
    assert update()[0] == "unreachable"


def test_the_part_refuses_a_client_without_a_certificate(part: Endpoints) -> None:
    with (
        urllib3.PoolManager(ca_certs=part.bundles.ca_file, retries=False) as pool,
        pytest.raises(urllib3.exceptions.HTTPError),
    ):
        pool.request("GET", f"{part.bundles.url}/metadata/timestamp.json")
