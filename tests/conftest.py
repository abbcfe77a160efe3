"""The one fixture that all tests against real components share."""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from infra.launcher.endpoints import ENDPOINTS_VARIABLE, Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.ports import free_port_base
from infra.launcher.settings import StackSettings

# A busy machine makes a single example slow; whether a property holds does not depend on that.
hypothesis.settings.register_profile("fieldlake", deadline=None)
hypothesis.settings.load_profile("fieldlake")

# A shell that puts the tests into the background has them, and all that they start, ignore the interrupt they send.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process per core for the layer without servers, chosen by `-m "not stack"`; none beside this one otherwise."""
    return os.cpu_count() or 1 if config.option.markexpr == "not stack" else 0


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """The whole stack, started once on first use; FIELDLAKE_TEST_ENDPOINTS names a running one's document instead."""
    running = os.environ.get(ENDPOINTS_VARIABLE, "")
    if running:
        yield read_endpoints(Path(running))
        return
    folder = Path(tempfile.mkdtemp(prefix="fieldlake-test-"))
    settings = StackSettings(state_dir=folder / "state", port_base=free_port_base(random.Random()))
    launcher = Launcher(settings)
    try:
        launcher.up()
        yield read_endpoints(endpoints_file(settings))
    finally:
        launcher.down()
        shutil.rmtree(folder, ignore_errors=True)
