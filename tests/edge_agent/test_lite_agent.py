"""An agent process of the lite profile against a real broker: what it loads, and what the lake gets of it."""

import hashlib
import json
import os
import subprocess
import sys

import msgspec
import pytest

from contracts import lite_model
from contracts.bundle import Model
from edge_agent.environment import AGENT_ENVIRONMENT
from tests.edge_agent.plant import ROOT, SENSORS, AgentProcess, LakeClient, bundle_of, lines_of, reading
from tests.waiting import DEADLINE_S, eventually

pytestmark = pytest.mark.stack

LITE = lite_model.encode(lite_model.Linear([1.0, *[0.0] * (len(SENSORS) - 1)]))
MODEL = Model(
    "first", "1", "none.onnx", "", SENSORS, 60.0, 8, "first.lite.json", hashlib.sha256(LITE).hexdigest()
)  # fmt: skip
# Ends as the agent does, and says what was loaded by then.
TOLD = (
    "import json, runpy, sys\n"
    "try:\n    runpy.run_module('edge_agent', run_name='__main__')\n"
    "finally:\n    json.dump(sorted(sys.modules), open('modules.json', 'w'))\n"
)


@pytest.fixture
def lite(agent: AgentProcess) -> AgentProcess:
    """An agent whose model exists in its lite form alone."""
    bundle_dir = agent.folder / "bundle"
    (bundle_dir / "bundle.json").write_bytes(msgspec.json.encode(bundle_of(MODEL)))
    (bundle_dir / "first.lite.json").write_bytes(LITE)
    agent.config["profile"] = "lite"
    return agent


def fill(agent: AgentProcess, events: int) -> None:
    agent.source_file.write_bytes(b"\n".join(lines_of([reading(seq) for seq in range(events)])) + b"\n")


def test_a_running_lite_agent_has_loaded_neither_numpy_nor_onnx_runtime(lite: AgentProcess, lake: LakeClient) -> None:
    fill(lite, 3_000)
    config_file = lite.folder / "agent.json"
    config_file.write_text(json.dumps(lite.config))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", TOLD, "--config", str(config_file)],
        cwd=lite.folder,
        env=os.environ | AGENT_ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()
    report = json.loads(run.stdout)
    kept = sum(reading(seq)["f1"] >= 60 for seq in range(3_000))
    assert (report["unexplained"], report["streams"]["telemetry"]["kept"]) == (0, kept)
    lake.lake.assert_conserves(3_000)
    assert {row["model"] for row in lake.lake.rows("telemetry")} == {"first@1"}
    loaded = set(json.loads((lite.folder / "modules.json").read_text()))
    assert {"edge_agent.lite.lists", "paho.mqtt.client", "zstandard"} < loaded
    assert not loaded & {"numpy", "onnxruntime", "datasketches", "pyarrow", "http.client", "argparse"}


def test_kill_9_and_another_profile_cost_nothing(agent: AgentProcess, lake: LakeClient) -> None:
    fill(agent, 3_000)
    agent.config["sources"][0]["rate_events_per_s"] = 1_500
    for profile, least in (("full", 3), ("lite", 12)):
        agent.config["profile"] = profile
        agent.start()
        eventually(lambda least=least: lake.lake.received > least, "some batches arrived")
        agent.kill()
    agent.config["profile"] = "full"
    agent.start()
    code, report = agent.wait()
    assert (code, report["unexplained"]) == (0, 0), agent.log()
    lake.lake.assert_conserves(3_000)
    assert len(lake.lake.rows("telemetry")) == 3_000
    assert sum(row["count"] for row in lake.lake.rows("telemetry_windows")) == len(SENSORS) * 3_000
