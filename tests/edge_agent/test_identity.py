"""Keys and certificates on disk: together or not at all, through a crash after every step."""

import datetime as dt
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts import enrolment
from contracts.enrolment import Granted, Refused
from edge_agent.adapters.identity import Generation, IdentityFolder
from edge_agent.core.updates.renewal import Validity
from edge_agent.enrolment.keys import make_request
from edge_agent.errors import IdentityError
from gateway.enrolment.authority import DEVICES, Authority, open_authority
from infra.setup.paths import edge_python, repo_root

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
LIFE = dt.timedelta(days=30)
HEAVY = ("cryptography", "asyncio", "requests", "pyarrow", "pandas")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return open_authority(tmp_path_factory.mktemp("authority"), DEVICES, NOW)


@pytest.fixture
def identity(tmp_path: Path) -> IdentityFolder:
    return IdentityFolder(tmp_path / "identity")


def answer_to(authority: Authority, folder: Path) -> bytes:
    issued = authority.sign(make_request(folder, "press-01").csr_pem, "press-01", LIFE, NOW)
    return enrolment.encode(
        Granted(issued.key_sha256, issued.pem, issued.serial, issued.not_before_ms, issued.not_after_ms)
    )


def enrolled(identity: IdentityFolder, authority: Authority) -> Generation:
    identity.store(answer_to(authority, identity.begin()))
    return identity.promote()


def test_a_new_device_has_nothing(identity: IdentityFolder) -> None:
    assert identity.current() is None
    assert identity.following() is None
    assert identity.unproved() is None


def test_the_first_certificate_is_in_use_once_it_is_promoted(identity: IdentityFolder, authority: Authority) -> None:
    stored = identity.store(answer_to(authority, identity.begin()))
    assert identity.current() is None
    assert identity.following() == stored
    assert identity.promote() == stored == identity.current()
    assert stored.validity.not_after_ms == int((NOW + LIFE).timestamp()) * 1_000
    assert os.stat(stored.key_file).st_mode & 0o777 == 0o600


def test_key_and_certificate_change_together_and_the_old_ones_go(
    identity: IdentityFolder, authority: Authority, tmp_path: Path
) -> None:
    first = enrolled(identity, authority)
    second = identity.store(answer_to(authority, identity.begin()))
    assert identity.current() == first
    assert identity.promote() == second == identity.current()
    assert sorted(os.listdir(tmp_path / "identity")) == ["2", "current"]


def test_a_crash_at_every_step_leaves_the_present_or_the_next_whole(
    identity: IdentityFolder, authority: Authority, tmp_path: Path
) -> None:
    first = enrolled(identity, authority)
    folder = tmp_path / "identity"

    def restarted() -> IdentityFolder:
        return IdentityFolder(folder)

    made = identity.begin()
    assert restarted().current() == first  # 1: an empty folder
    document = answer_to(authority, made)
    assert restarted().unproved() == made  # 1: the key alone
    assert restarted().following() is None
    second = identity.store(document)
    certificate = Path(second.cert_file)
    certificate.rename(certificate.with_suffix(".pem.partial"))
    assert restarted().following() is None  # 2: the answer, and not yet the certificate
    assert restarted().store(document) == second  # the answer again
    assert restarted().following() == second  # 2
    shutil.copytree(folder, tmp_path / "before", symlinks=True)
    assert restarted().promote() == second  # 3
    shutil.copytree(tmp_path / "before" / "1", folder / "1")  # a crash before 4
    assert restarted().current() == second
    assert restarted().following() is None
    third = restarted().store(answer_to(authority, restarted().begin()))
    assert restarted().promote() == third
    assert sorted(os.listdir(folder)) == ["3", "current"]


def test_a_next_one_that_was_thrown_away_leaves_no_key(
    identity: IdentityFolder, authority: Authority, tmp_path: Path
) -> None:
    first = enrolled(identity, authority)
    identity.store(answer_to(authority, identity.begin()))
    identity.discard()
    assert identity.following() is None
    assert identity.current() == first
    assert sorted(os.listdir(tmp_path / "identity")) == ["1", "current"]


@pytest.mark.parametrize("kind", ["refused", "rubbish", "another key", "no certificate"])
def test_an_answer_that_is_not_for_this_key_is_not_stored(
    identity: IdentityFolder, authority: Authority, tmp_path: Path, kind: str
) -> None:
    own = identity.begin()
    document = answer_to(authority, own)
    other = tmp_path / "other"
    other.mkdir()
    bad = {
        "refused": enrolment.encode(Refused("revoked", "out")),
        "rubbish": b"{",
        "another key": answer_to(authority, other),
        "no certificate": enrolment.encode(Granted("", "x", "", 0, 0)),
    }[kind]
    with pytest.raises(IdentityError):
        identity.store(bad)
    assert identity.following() is None
    with pytest.raises(IdentityError):
        identity.promote()
    assert identity.store(document).validity == Validity(
        int((NOW - dt.timedelta(hours=1)).timestamp()) * 1_000, int((NOW + LIFE).timestamp()) * 1_000
    )


def test_a_damaged_identity_says_to_enrol_again(identity: IdentityFolder, authority: Authority) -> None:
    present = enrolled(identity, authority)
    (Path(present.cert_file).parent / "answer.json").write_text("{")
    with pytest.raises(IdentityError, match="enrol the device again"):
        identity.current()


def test_the_agents_process_loads_no_key_library() -> None:
    modules = "edge_agent.adapters.identity, edge_agent.adapters.rotation, edge_agent.core.updates.renewal"
    code = f"import sys, {modules}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_child_runs_in_the_devices_own_environment(tmp_path: Path) -> None:
    command = [str(edge_python()), "-W", "error", "-m", "edge_agent.enrolment"]
    done = subprocess.run(
        [*command, "request", "--device", "press-01", "--folder", str(tmp_path / "identity")],
        cwd=repo_root(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "BEGIN CERTIFICATE REQUEST" in enrolment.decode_renew(done.stdout.encode()).csr_pem
    assert (tmp_path / "identity" / "1" / "key.pem").exists()
    bad = tmp_path / "invitation.json"
    bad.write_text("{}")
    done = subprocess.run(
        [*command, "enrol", "--invitation", str(bad), "--folder", str(tmp_path / "identity")],
        cwd=repo_root(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
