"""The updating process as the agent starts it: a verdict whatever happens, and nothing of it in the agent itself."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from contracts.topics import ORIGIN_CHARS_MAX
from edge_agent.core.updates.updates import Verdict
from tests.edge_agent.plant import ROOT
from tests.edge_agent.supply import supplied

pytestmark = pytest.mark.stack


def test_the_process_says_its_verdict_whatever_it_is(tmp_path: Path) -> None:
    with supplied(tmp_path / "world") as (_, _, device):
        file = tmp_path / "updating.json"
        file.write_bytes(msgspec.json.encode(device.config))
        found = [run(file), run(file, "--announced", "9"), run(file, "--known-time-ms", str(2**42))]
    assert [(code, verdict.outcome, verdict.reason) for code, verdict in found] == [
        (0, "activated", ""), (0, "failed", "behind_announcement"), (0, "refused", "expired"),
    ]  # fmt: skip
    assert found[0][1].active == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\xff", b'{"device":"' + b"d" * (ORIGIN_CHARS_MAX + 1) + b'"}'],
)
def test_a_configuration_that_cannot_be_followed_is_a_verdict_too(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "updating.json"
    file.write_bytes(content)
    code, verdict = run(file)
    assert (code, verdict.outcome, verdict.reason) == (2, "refused", "configuration")


def run(file: Path, *options: str) -> tuple[int, Verdict]:
    """Run the process; return its exit code and verdict."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "edge_agent.updating", "--config", str(file), *options],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout.count(b"\n") == 1, done.stderr
    return done.returncode, msgspec.json.decode(done.stdout, type=Verdict)


def test_the_agent_never_loads_what_verifies() -> None:
    code = (
        "import sys, edge_agent.app, edge_agent.core.updates.rollout, edge_agent.adapters.updating_process\n"
        "print([name for name in ('tuf', 'securesystemslib', 'cryptography', 'urllib3', 'asyncio', 'subprocess') "
        "if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
