"""A small copy of the stack: what dies comes back, and nothing is left of it, even without its supervisor."""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from infra.launcher.errors import PartFailedError, PortInUseError
from infra.launcher.launcher import Launcher
from infra.launcher.parts import postgres
from infra.launcher.ports import free_port_base, is_free
from infra.launcher.processes import left_over
from infra.launcher.settings import PORT_OFFSETS, StackSettings
from infra.launcher.status import PartStatus, StackStatus, status_of
from infra.launcher.supervision import running_supervisor
from infra.setup.paths import repo_root

pytestmark = pytest.mark.stack

SMALL = ("postgres", "kafka", "mosquitto")
PATIENCE_S = 90.0  # of a machine on which everything else runs too


@pytest.fixture
def settings() -> Iterator[StackSettings]:
    folder = Path(tempfile.mkdtemp(prefix="fieldlake-test-"))
    made = StackSettings(folder / "state", free_port_base(random.Random()))
    try:
        yield made
    finally:
        Launcher(made).down()
        shutil.rmtree(folder)


def part_of(status: StackStatus, name: str) -> PartStatus:
    return next(part for part in status.parts if part.name == name)


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Look until it holds; the pause is a wait on an event that nobody sets."""
    never, deadline_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"{what}: not within {PATIENCE_S} s"
        never.wait(0.2)


def assert_nothing_left(settings: StackSettings) -> None:
    assert left_over(settings.instance) == []
    assert running_supervisor(settings) is None
    assert all(is_free(settings.port(name)) for name in PORT_OFFSETS)
    assert not list(settings.run_dir.glob("*.sock"))


def test_what_dies_comes_back_and_down_leaves_nothing(settings: StackSettings) -> None:
    launcher = Launcher(settings)
    launcher.up(SMALL)
    before = status_of(settings)
    assert {part.name for part in before.parts if part.ready} == set(SMALL)
    assert all(part.memory_mib > 0 for part in before.parts if part.ready)
    assert before.memory_gib > 0
    killed = part_of(before, "mosquitto")
    assert killed.pid is not None
    psutil.Process(killed.pid).send_signal(signal.SIGKILL)

    def is_back() -> bool:
        now = part_of(status_of(settings), "mosquitto")
        return now.ready and now.pid != killed.pid

    wait_until(is_back, "mosquitto after SIGKILL")
    after = status_of(settings)
    assert [part_of(after, name).pid for name in ("postgres", "kafka")] == [
        part_of(before, name).pid for name in ("postgres", "kafka")
    ]
    with psycopg.connect(postgres.connection_string(launcher.context(), "postgres")) as connection:
        kept = {str(row[0]) for row in connection.execute("SELECT rolpassword FROM pg_authid WHERE rolcanlogin")}
    assert {one.split(":")[0] for one in kept} == {f"SCRAM-SHA-256${postgres.SCRAM_ITERATIONS}"}
    launcher.up(SMALL)
    assert [part.pid for part in status_of(settings).parts] == [part.pid for part in after.parts]
    launcher.down()
    assert_nothing_left(settings)


def test_down_and_up_work_without_the_supervisor(settings: StackSettings) -> None:
    launcher = Launcher(settings)
    launcher.up(["mosquitto"])
    supervisor = running_supervisor(settings)
    assert supervisor is not None
    supervisor.kill()
    wait_until(lambda: running_supervisor(settings) is None, "supervisor after SIGKILL")
    orphans = left_over(settings.instance)
    assert [process.name() for process in orphans] == ["mosquitto"]
    launcher.up(["mosquitto"])
    assert not any(process.is_running() for process in orphans)
    supervisor = running_supervisor(settings)
    assert supervisor is not None
    supervisor.kill()
    launcher.down()
    assert_nothing_left(settings)


def test_a_stale_pid_file_kills_nobody(settings: StackSettings) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        settings.run_dir.mkdir(parents=True)
        (settings.run_dir / "supervisord.pid").write_text(str(bystander.pid))
        Launcher(settings).down()
        assert bystander.poll() is None
        bystander.kill()


def test_a_port_in_use_is_refused_before_anything_starts(settings: StackSettings) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(settings.port("kafka"))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as holder:
        wait_until(lambda: not is_free(settings.port("kafka")), "the holder of the port")
        with pytest.raises(PortInUseError, match=rf"kafka of part kafka.*pid {holder.pid} .*FIELDLAKE_PORT_BASE"):
            Launcher(settings).up(SMALL)
        assert left_over(settings.instance) == []
        holder.kill()


def test_a_part_that_does_not_start_is_named_and_nothing_stays(settings: StackSettings) -> None:
    # A data folder of another version: PostgreSQL refuses it and says so in its log.
    cluster = settings.data_dir / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("9\n")
    with pytest.raises(
        PartFailedError, match=r"postgres: its process ended 3 times at start; .*/postgres\.log: .*FATAL"
    ):
        Launcher(settings).up(["postgres", "mosquitto"])
    assert_nothing_left(settings)


def test_an_interrupted_up_stops_what_it_has_started(settings: StackSettings) -> None:
    arguments = ["--state-dir", str(settings.state_dir), "--port-base", str(settings.port_base)]
    with subprocess.Popen(
        [sys.executable, "-m", "infra.cli", "up", "--only", ",".join(SMALL), *arguments],
        cwd=repo_root(),
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        wait_until(lambda: not is_free(settings.port("mosquitto")), "mosquitto's port")
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 130
    assert "interrupted" in said.splitlines()[-1]
    assert_nothing_left(settings)
