"""The repository of signed bundles: what it publishes, how it goes back, and that devices never see half a change."""

import datetime as dt
import itertools
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from contracts import bundle as bundles
from contracts import releases
from contracts.bundle import BUNDLE_FILE, Bundle, Dictionary, Model
from contracts.errors import ReleaseError
from infra.bundles import keys, local, metadata
from infra.bundles.errors import (
    NoSuchReleaseError,
    RepositoryDamagedError,
    RepositoryMissingError,
    SigningKeyError,
)
from infra.bundles.keys import KeyFolder
from infra.bundles.repository import Repository, put_durably
from infra.cli.main import run
from infra.launcher.settings import StackSettings
from tests.edge_agent.supply import Device, FolderFetcher, Supply, bundle_folder

FILES = {"m.bin": b"one"}


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    return Supply(tmp_path)


def shown(supply: Supply, group: str) -> tuple[int, str]:
    """Return number and version of what a group runs."""
    found = {entry.group: entry for entry in supply.repository.state().groups}[group]
    return found.release.number, found.bundle_version


def test_a_group_goes_forward_and_back_under_numbers_that_only_grow(supply: Supply) -> None:
    assert [supply.publish(version) for version in ("a", "b", "c")] == [1, 2, 3]
    assert shown(supply, "default") == (3, "c")
    assert supply.repository.revert("default").number == 4
    assert shown(supply, "default") == (4, "b")
    supply.repository.revert("default", 1)
    assert shown(supply, "default") == (5, "a")
    assert supply.repository.state().groups[0].numbers == (1, 2, 3, 4, 5)


def test_other_groups_are_given_the_same_in_one_step(supply: Supply) -> None:
    supply.publish("a", agent="0.3")
    supply.publish("z", group="presses")
    before = supply.repository.state().timestamp_version
    supply.repository.rollout("default", ("presses", "canary"))
    state = supply.repository.state()
    assert state.timestamp_version == before + 1
    assert [(g.group, g.release.number, g.release.agent_version_min, g.bundle_version) for g in state.groups] == [
        ("canary", 1, "0.3", "a"), ("default", 1, "0.3", "a"), ("presses", 2, "0.3", "a"),
    ]  # fmt: skip


def test_the_same_content_is_published_once(supply: Supply, tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "b", "a")
    assert supply.repository.ensure_published("default", folder) is not None
    assert supply.repository.ensure_published("default", folder) is None
    bundle_folder(folder, "b")
    published = supply.repository.ensure_published("default", folder)
    assert published is not None
    assert published.number == 2


def test_what_was_never_published_is_named(supply: Supply) -> None:
    supply.publish("a")
    for call in (
        lambda: supply.repository.revert("default"),
        lambda: supply.repository.revert("default", 7),
        lambda: supply.repository.rollout("nobody", ("default",)),
    ):
        with pytest.raises(NoSuchReleaseError):
            call()
    with pytest.raises(ReleaseError, match="group"):
        supply.publish("a", group="Größe")
    with pytest.raises(ReleaseError, match="version"):
        supply.publish("a", agent="new")
    assert shown(supply, "default") == (1, "a")


def test_a_folder_that_is_not_its_document_is_refused(supply: Supply, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    with pytest.raises(ReleaseError, match=r"bundle\.json"):
        supply.repository.publish("default", folder)
    folder = bundle_folder(folder, "a", {"telemetry.zdict": b"12345678"})
    (folder / "telemetry.zdict").write_bytes(b"changed")
    with pytest.raises(ReleaseError, match=r"telemetry\.zdict: expected SHA-256"):
        supply.repository.publish("default", folder)
    (folder / "telemetry.zdict").unlink()
    with pytest.raises(ReleaseError, match="No such file"):
        supply.repository.publish("default", folder)
    assert supply.repository.state().groups == ()


def test_a_repository_is_made_once_and_missed_when_it_is_not(tmp_path: Path) -> None:
    repository = Repository(tmp_path, lambda: dt.datetime.now(dt.UTC))
    with pytest.raises(RepositoryMissingError, match="fieldlake bundle init"):
        repository.state()
    repository.init()
    with pytest.raises(RepositoryMissingError, match="it exists"):
        repository.init()


def test_keys_are_for_their_owner_alone_and_never_served(supply: Supply) -> None:
    folder = supply.home / "keys"
    assert {file.stem for file in folder.iterdir()} == set(keys.KEYS)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.is_relative_to(supply.served)
    secret = [line for file in folder.iterdir() for line in file.read_bytes().splitlines()[1:-1]]
    for file in supply.served.rglob("*"):
        assert not file.is_file() or not any(line in file.read_bytes() for line in secret)


def test_a_key_that_others_may_read_or_that_is_none_signs_nothing(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.make("timestamp")
    file = tmp_path / "timestamp.pem"
    file.chmod(0o640)
    with pytest.raises(SigningKeyError, match="expected mode 0600, found 0640"):
        folder.load("timestamp")
    file.chmod(0o600)
    file.write_bytes(b"no key")
    with pytest.raises(SigningKeyError, match="expected an ed25519 key"):
        folder.load("timestamp")
    other = rsa.generate_private_key(65_537, 2_048)
    file.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(SigningKeyError, match="found RSAPrivateKey"):
        folder.load("timestamp")
    with pytest.raises(SigningKeyError, match="No such file"):
        folder.load("snapshot")


def test_everything_but_a_change_of_keys_works_without_the_root_keys(supply: Supply) -> None:
    for name in keys.ROOT_KEYS:
        (supply.home / "keys" / f"{name}.pem").unlink()
    assert supply.publish("a") == 1
    with pytest.raises(SigningKeyError, match="bring 2 of the keys"):
        supply.repository.rotate("timestamp")


def test_two_of_three_root_keys_change_any_key_also_the_lost_one(supply: Supply, tmp_path: Path) -> None:
    device = Device(tmp_path / "device", "https://repository", supply.repository.root())
    supply.publish("a")
    assert device.update(fetcher=FolderFetcher(supply.served)).outcome == "activated"
    (supply.home / "keys" / "root-3.pem").unlink()
    assert [supply.repository.rotate(name) for name in ("timestamp", "snapshot", "targets", "releases", "root-3")] == [
        2, 3, 4, 5, 6,
    ]  # fmt: skip
    supply.publish("b")
    assert device.update(fetcher=FolderFetcher(supply.served)).outcome == "staged"
    assert supply.repository.renew() is False
    with pytest.raises(SigningKeyError, match="expected one of"):
        supply.repository.rotate("other")


def test_a_change_of_keys_that_was_cut_off_signs_nothing_until_it_is_finished(supply: Supply) -> None:
    supply.publish("a")
    supply.keys.make("timestamp")  # what `rotate` does first
    with pytest.raises(SigningKeyError, match="fieldlake bundle rotate timestamp"):
        supply.publish("b")
    supply.repository.rotate("timestamp")
    assert supply.publish("b") == 2


def test_what_has_lived_half_of_its_time_is_signed_anew(supply: Supply, tmp_path: Path) -> None:
    supply.publish("a")
    device = Device(tmp_path / "device", "https://repository", supply.repository.root())
    seen = []
    for _ in range(95):
        supply.clock.turn(days=8)
        assert supply.repository.renew()
        seen.append(supply.chain())
        for document, valid in ((seen[-1].timestamp, metadata.TIMESTAMP_VALID), (seen[-1].root, metadata.ROOT_VALID)):
            assert document.signed.expires - supply.clock() >= valid / 2
        assert not supply.repository.renew()
    assert shown(supply, "default") == (1, "a")
    assert seen[-1].root.signed.version > 1
    verdict = device.update(fetcher=FolderFetcher(supply.served), now=supply.clock())
    assert verdict.outcome == "activated"


def test_a_damaged_repository_is_not_built_upon(supply: Supply) -> None:
    supply.publish("a")
    file = supply.served / "metadata" / "1.group-default.json"
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    with pytest.raises(RepositoryDamagedError):
        supply.publish("b")
    file.unlink()
    with pytest.raises(RepositoryDamagedError):
        supply.repository.state()


class Crash(BaseException):
    """The power is gone."""


def test_a_crash_at_any_file_shows_devices_all_of_a_change_or_nothing(tmp_path: Path) -> None:
    for at in itertools.count():
        folder = tmp_path / str(at)
        folder.mkdir()
        supply = Supply(folder)
        supply.publish("a", {"telemetry.zdict": b"12345678"})
        left = at

        def put(path: Path, data: bytes) -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            put_durably(path, data)

        crashing = Repository(supply.home, supply.clock, put)
        source = bundle_folder(folder / "next", "b", {"telemetry.zdict": b"87654321"})
        try:
            crashing.publish("default", source)
            assert at > 5
            return
        except Crash:
            pass
        device = Device(folder / "device", "https://repository", supply.repository.root())
        verdict = device.update(fetcher=FolderFetcher(supply.served))
        assert (verdict.reason, verdict.release) == ("unusable", 1)  # the whole first release: its dictionary is none
        assert shown(supply, "default") == (1, "a")
        published = supply.repository.publish("default", source)
        assert (published.number, shown(supply, "default")) == (2, (2, "b"))
        fetched = bundles.decode(
            next((supply.served / "targets/groups/default").glob(f"{_sha(supply)}.bundle.json")).read_bytes()
        )
        assert fetched.version == "b"


def _sha(supply: Supply) -> str:
    return str(supply.chain().files("default")[releases.manifest("default")].hashes["sha256"])


def test_the_stack_has_its_repository_from_the_first_start(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path)
    assert not local.ensure_repository(settings).renew()
    folder = bundle_folder(tmp_path / "b", "a")
    assert local.publish_standard(settings, folder) is not None
    assert local.publish_standard(settings, folder) is None
    assert not local.ensure_repository(settings).renew()


def test_the_command_line_does_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = bundle_folder(tmp_path / "b", "3.1")
    said = []
    for words in (
        "init", f"publish canary {folder} --agent-min 0.1", "rollout canary default presses", "revert canary --to 1",
        "show", "show --json", "assign press-01 canary", "renew", "rotate snapshot",
    ):  # fmt: skip
        assert run(["bundle", *words.split(), "--state-dir", str(tmp_path / "state")]) == 0, capsys.readouterr().err
        said.append(capsys.readouterr().out)
    assert said[1] == "group canary: release 1, bundle 3.1, 0 files, timestamp 2\n"
    assert said[2].splitlines()[1] == "group presses: release 1, bundle 3.1, 0 files, timestamp 3"
    assert said[3] == "group canary: release 2, bundle 3.1, 0 files, timestamp 4\n"
    assert "canary: release 2, bundle 3.1, 1 files, agent 0.1 or newer; releases 1, 2" in said[4]
    assert msgspec.json.decode(said[5])["timestamp_version"] == 4
    assert said[6:] == ["device press-01 is in group canary\n", "nothing is due\n", "key snapshot replaced, root 2\n"]
    assert run(["bundle", "revert", "nobody", "--state-dir", str(tmp_path / "state")]) == 1
    assert capsys.readouterr().err.startswith("fieldlake: group 'nobody': no release")


def model(name: str, sha256: str = "aa") -> Model:
    return Model("m", "1", name, sha256, (), 0.0, 1)


def test_every_file_that_a_bundle_names_is_published_once() -> None:
    both = Bundle("1", (), (), (Dictionary(1, "c", "c.zdict", "bb"),), (model("m.onnx"), model("m.onnx")))
    assert [(file.name, file.sha256) for file in releases.files_of(both)] == [("c.zdict", "bb"), ("m.onnx", "aa")]
    for models in ((model("m.onnx"), model("m.onnx", "cc")), (model(BUNDLE_FILE),), (model("../m"),)):
        with pytest.raises(ReleaseError):
            releases.files_of(Bundle("1", (), (), (), models))
    with pytest.raises(ReleaseError, match="at most"):
        releases.files_of(Bundle("1", (), (), (), tuple(model(f"m{n}") for n in range(releases.FILES_MAX + 1))))


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_versions_are_compared_by_their_numbers(one: list[int], other: list[int]) -> None:
    length = max(len(one), len(other))
    padded = [parts + [0] * (length - len(parts)) for parts in (one, other)]
    found = [releases.version_order(".".join(map(str, parts))) for parts in (one, other)]
    assert (found[0] > found[1]) == (padded[0] > padded[1])
    assert (found[0] == found[1]) == (padded[0] == padded[1])


@given(st.text(max_size=120))
def test_a_name_of_a_file_never_leaves_its_folder(name: str) -> None:
    try:
        releases.check_file(name)
    except ReleaseError:
        return
    assert Path(name).name == name
    assert not name.startswith(".")
