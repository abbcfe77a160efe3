"""`fieldlake device`, against a broker and an enrolment service that the launcher started."""

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from edge_agent.adapters.identity import IdentityFolder
from infra.cli.main import run
from infra.fleet.identity import ensure_identities, ensure_identity, identity_folder
from infra.launcher.endpoints import Endpoints, endpoints_file, read_endpoints
from infra.launcher.launcher import Launcher
from infra.launcher.parts import services
from infra.launcher.ports import free_port_base
from infra.launcher.settings import StackSettings
from infra.launcher.status import status_of

pytestmark = pytest.mark.stack

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def settings() -> Iterator[StackSettings]:
    folder = Path(tempfile.mkdtemp(prefix="fieldlake-test-"))
    made = StackSettings(folder / "state", free_port_base(random.Random()))
    try:
        Launcher(made).up([services.ENROLMENT])
        yield made
    finally:
        Launcher(made).down()
        shutil.rmtree(folder)


@pytest.fixture
def endpoints(settings: StackSettings) -> Endpoints:
    return read_endpoints(endpoints_file(settings))


@pytest.fixture
def ask(settings: StackSettings, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a `device` command; return exit code, standard output and standard error."""

    def command(*words: str, stack: bool = True) -> tuple[int, str, str]:
        where = ["--state-dir", str(settings.state_dir), "--port-base", str(settings.port_base)] if stack else []
        code = run(["device", *words, *where])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def states(ask: Ask) -> dict[str, str]:
    code, out, err = ask("list", "--json")
    assert code == 0, err
    return {entry["device"]: entry["state"] for entry in json.loads(out)}


def test_a_device_from_invitation_to_revocation(ask: Ask, tmp_path: Path) -> None:
    invitation, folder = tmp_path / "press-01.json", tmp_path / "identity"
    code, out, err = ask("invite", "press-01", "--group", "冲压车间", "--out", str(invitation))
    assert code == 0, err
    assert invitation.stat().st_mode & 0o777 == 0o600
    assert json.loads(invitation.read_text())["token"] not in out + err
    assert states(ask)["press-01"] == "invited"
    code, out, err = ask("enrol", str(invitation), "--folder", str(folder), stack=False)
    assert code == 0, err
    assert IdentityFolder(folder).current() is not None
    assert states(ask)["press-01"] == "active"
    assert "冲压车间" in ask("list")[1]
    code, out, err = ask("revoke", "press-01", "--reason", "被盗")
    assert code == 0, err
    assert "1 certificates revoked" in out
    assert states(ask)["press-01"] == "revoked"
    code, out, err = ask("enrol", str(invitation), "--folder", str(tmp_path / "again"), stack=False)
    assert code == 1
    assert "taken out of service" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("invite", "gateway"), "no service of ours has"),
        (("invite", "a/b"), "expected a name"),
        (("revoke", "unknown"), "not in the registry"),
    ],
)
def test_a_wrong_name_gets_one_line(ask: Ask, words: tuple[str, ...], expected: str) -> None:
    code, out, err = ask(*words)
    assert code == 1
    assert out == ""
    assert err.count("\n") == 1
    assert expected in err


def test_a_file_that_is_no_invitation_gets_one_line(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"token": "SECRET"}')
    code, _, err = ask("enrol", str(tmp_path / "x.json"), "--folder", str(tmp_path / "identity"), stack=False)
    assert code == 1
    assert "expected an invitation" in err
    assert "SECRET" not in err


def test_a_fleet_is_enrolled_once_and_without_waiting(
    endpoints: Endpoints, ask: Ask, record_property: Callable[[str, object], None]
) -> None:
    names = [f"fleet-{number:02}" for number in range(26)]
    began_s = monotonic()
    made = ensure_identities(endpoints, names)
    record_property("enrolment_s", round((monotonic() - began_s) / len(names), 3))
    assert ensure_identities(endpoints, names) == made
    assert {name: state for name, state in states(ask).items() if name in names} == dict.fromkeys(names, "active")
    assert ensure_identity(endpoints, "fleet-00") == made["fleet-00"]
    assert (identity_folder(endpoints, "fleet-00") / "current").is_symlink()


def test_the_service_is_a_part_that_comes_back(settings: StackSettings) -> None:
    Launcher(settings).restart(services.ENROLMENT)
    part = next(part for part in status_of(settings).parts if part.name == services.ENROLMENT)
    assert part.ready
