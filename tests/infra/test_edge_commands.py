"""`fieldlake edge status|try|doctor` say what the device's own commands say, and find a device of the stack by name."""

import json
import shutil
from pathlib import Path

import pytest

from edge_agent.operating.commands import main as device_command
from infra.cli.main import run
from tests.edge_agent.device_folder import DEVICE, DeviceFolder


@pytest.fixture
def device(tmp_path: Path) -> DeviceFolder:
    made = DeviceFolder(tmp_path)
    made.written()
    return made


@pytest.mark.parametrize(
    "words",
    [["status"], ["doctor", "--offline"], ["try", "--sample", "SAMPLE", "--examples", "1"]],
    ids=lambda words: words[0],
)
def test_both_command_lines_say_the_same(
    device: DeviceFolder, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(device.sample) if word == "SAMPLE" else word for word in words]
    where = ["--config", str(device.config_file)]
    code = run(["edge", *asked, *where, "--json"])
    here = json.loads(capsys.readouterr().out)
    assert device_command([*asked, *where, "--json"]) == code
    there = json.loads(capsys.readouterr().out)
    here.pop("findings", None)  # free disk and memory change from one moment to the next
    there.pop("findings", None)
    assert here == there


def test_a_device_of_the_stack_is_found_by_its_name(
    device: DeviceFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    home = state / "devices" / DEVICE / "0123456789ab"
    home.mkdir(parents=True)
    shutil.copyfile(device.config_file, home / "agent.json")
    assert run(["edge", "status", "--device", DEVICE, "--state-dir", str(state)]) == 1  # no agent has run yet
    assert f"device      {DEVICE}" in capsys.readouterr().out
    assert run(["edge", "status", "--device", "press-99", "--state-dir", str(state)]) == 2
    assert "has run no agent of that name" in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--config", "a.json", "--device", "b"]])
def test_it_must_be_clear_which_agent_is_meant(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["edge", "doctor", *where]) == 2
    assert "expected --config, or --device" in capsys.readouterr().err


def test_what_cannot_be_said_is_an_error_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["edge", "status", "--config", str(tmp_path / "gone.json")]) == 1
    said = capsys.readouterr().err
    assert "expected a readable file" in said
    assert said.count("\n") == 1
