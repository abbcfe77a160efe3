"""Ctrl-C in the demo leaves no process behind."""

import os
import random
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from infra.launcher.ports import free_port_base
from infra.setup.paths import lake_env, repo_root
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack

INTERRUPTED = 130


def _processes_of(folder: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line:
            found.append(line)
    return found


def test_ctrl_c_while_the_stack_starts_leaves_no_process(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    environment = {
        **os.environ,
        "FIELDLAKE_STATE_DIR": str(tmp_path / "state"),
        "FIELDLAKE_PORT_BASE": str(free_port_base(random.Random())),
    }
    with log.open("wb") as output:
        demo = subprocess.Popen(
            # As from a terminal: a runner in the background hands down that interrupts are ignored.
            ["env", "--default-signal=INT", lake_env() / "bin" / "fieldlake", "demo", "--out", str(tmp_path / "out")],
            cwd=repo_root(), env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0,
        )  # fmt: skip
    try:
        eventually(lambda: "ready after" in log.read_text(), "a part of the stack is ready")
        assert len(_processes_of(tmp_path / "state-demo")) > 1
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(DEADLINE_S) == INTERRUPTED, log.read_text()[-2_000:]
    finally:
        demo.kill()
        demo.wait()
    assert _processes_of(tmp_path / "state-demo") == []
    assert "what this command had started is stopped" in log.read_text().splitlines()[-1]
