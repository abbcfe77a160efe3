"""A device has one unfinished replay at a time."""

from functools import partial
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from contracts.errors import OperatorMustActError
from edge_agent.config import AgentConfig, ProfileName
from infra.fleet.agent import Replay, home_of, prepare
from infra.launcher.certificates import ensure_certificates
from infra.launcher.endpoints import Endpoints, endpoints_of
from infra.launcher.model import Context
from infra.launcher.secrets import load_secrets
from infra.launcher.settings import StackSettings
from tests.identities import identify

prepare_known = partial(prepare, identify=identify)  # no service runs here


@pytest.fixture
def endpoints(tmp_path: Path) -> Endpoints:
    settings = StackSettings(state_dir=tmp_path / "state")
    ensure_certificates(settings)
    return endpoints_of(Context(settings, load_secrets(settings)))


def _replay(folder: Path, name: str) -> Replay:
    file = folder / f"{name}.jsonl"
    file.write_text('{"customer_id": "C-1"}\n' * len(name))
    return Replay("press-01", "purchases", file)


def _leave(endpoints: Endpoints, replay: Replay, drained: bool | None) -> None:
    home = home_of(endpoints, replay)
    (home / "spool").mkdir()
    if drained is not None:
        (home / "status.json").write_bytes(msgspec.json.encode({"drained": drained}))


def test_the_same_replay_goes_on_where_it_stopped(endpoints: Endpoints, tmp_path: Path) -> None:
    first = _replay(tmp_path, "a")
    config = prepare_known(endpoints, tmp_path, first)
    _leave(endpoints, first, drained=False)
    assert prepare_known(endpoints, tmp_path, first) == config


@pytest.mark.parametrize("drained", [False, None])
def test_another_file_is_refused_while_the_first_is_not_drained(
    endpoints: Endpoints, tmp_path: Path, drained: bool | None
) -> None:
    first = _replay(tmp_path, "a")
    prepare_known(endpoints, tmp_path, first)
    _leave(endpoints, first, drained)
    with pytest.raises(OperatorMustActError, match=r"a\.jsonl is not drained"):
        prepare_known(endpoints, tmp_path, _replay(tmp_path, "bb"))


def test_another_file_follows_a_drained_one(endpoints: Endpoints, tmp_path: Path) -> None:
    first = _replay(tmp_path, "a")
    before = prepare_known(endpoints, tmp_path, first)
    _leave(endpoints, first, drained=True)
    assert prepare_known(endpoints, tmp_path, _replay(tmp_path, "bb")) != before


@pytest.mark.parametrize("name", ["", "a/b", "设备", "x" * 65])
def test_a_name_that_no_topic_can_carry_is_refused(endpoints: Endpoints, tmp_path: Path, name: str) -> None:
    with pytest.raises(OperatorMustActError, match="expected up to 64"):
        prepare_known(endpoints, tmp_path, Replay(name, "purchases", tmp_path / "none"))


@pytest.mark.parametrize("profile", ["full", "lite"])
def test_a_device_has_the_profile_that_was_asked_for(
    endpoints: Endpoints, tmp_path: Path, profile: ProfileName
) -> None:
    path = prepare_known(endpoints, tmp_path, replace(_replay(tmp_path, "a"), profile=profile))
    assert msgspec.json.decode(path.read_bytes(), type=AgentConfig).profile == profile
