"""What a device must not take: the real client against the real repository, behind a server that lies."""

import datetime as dt
import hashlib
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard
from msgspec.structs import replace
from securesystemslib.signer import CryptoSigner

from contracts import bundle as bundles
from contracts.bundle import BUNDLE_FILE, Model, Release
from contracts.releases import FILE_BYTES_MAX
from edge_agent.adapters import bundle_versions
from edge_agent.core.updates.updates import Verdict
from infra.bundles import chain, keys, metadata
from tests.edge_agent.supply import GROUP, Device, LyingServer, Supply, bundle_with, supplied

SAMPLES = [bytes([number % 7, number % 11, number % 13] * 20) for number in range(200)]
DICTIONARY = zstandard.train_dictionary(2_000, SAMPLES, dict_id=40_001).as_bytes()
FILES = {"telemetry.zdict": DICTIONARY}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Supply, LyingServer, Device]]:
    with supplied(tmp_path / "world") as made:
        yield made


@pytest.fixture
def supply(world: tuple[Supply, LyingServer, Device]) -> Supply:
    return world[0]


@pytest.fixture
def server(world: tuple[Supply, LyingServer, Device]) -> LyingServer:
    return world[1]


@pytest.fixture
def device(world: tuple[Supply, LyingServer, Device]) -> Device:
    """A device that runs release 1."""
    assert world[2].update().outcome == "activated"
    return world[2]


def assert_refused(device: Device, reason: str, verdict: Verdict | None = None) -> Verdict:
    """Assert the refusal, and that the device still has what it had."""
    verdict = verdict or device.update()
    assert (verdict.outcome, verdict.reason) == ("refused", reason), verdict
    assert verdict.detail
    assert bundle_versions.active(device.bundles_dir) == 1
    bundles.decode((device.bundles_dir / "active" / BUNDLE_FILE).read_bytes())
    return verdict


def manifest(**changes: object) -> bytes:
    """Return the document of a release of our group."""
    document = replace(bundle_with("2"), release=Release(GROUP, 2))
    return bundles.encode(replace(document, **changes))  # type: ignore[arg-type]


def metadata_file(supply: Supply, name: str) -> Path:
    return supply.served / "metadata" / name


# What an attacker can do who owns the server or the way to it.


def test_an_older_state_of_the_whole_server_is_a_rollback(supply: Supply, server: LyingServer, device: Device) -> None:
    before = supply.copy()
    supply.publish("2")
    assert device.update().outcome == "staged"
    server.folder = before
    assert_refused(device, "rollback")


def test_a_server_that_keeps_newer_metadata_back_is_noticed_when_it_expires(supply: Supply, device: Device) -> None:
    later = dt.datetime.now(dt.UTC) + metadata.TIMESTAMP_VALID + dt.timedelta(seconds=2)
    assert "timestamp.json" in assert_refused(device, "expired", device.update(now=later)).detail


def test_a_server_that_keeps_newer_metadata_back_is_noticed_by_the_announcement(device: Device) -> None:
    verdict = device.update(announced=3)
    assert (verdict.outcome, verdict.reason, verdict.timestamp_version) == ("failed", "behind_announcement", 0)
    assert bundle_versions.active(device.bundles_dir) == 1


def test_expired_metadata_is_refused_by_the_library_too(supply: Supply, device: Device) -> None:
    supply.clock.turn(days=-20)
    supply.publish("2")
    assert_refused(device, "expired")


def test_a_device_without_a_clock_counts_from_the_newest_timestamp(supply: Supply, device: Device) -> None:
    # Its clock stands still, and the attacker shows a snapshot that expired before the timestamp was signed.
    found = supply.chain()
    snapshot = metadata.Document(found.snapshot.signed.version, found.snapshot.to_bytes(metadata.COMPACT))
    later = supply.clock() + metadata.SNAPSHOT_VALID + dt.timedelta(days=1)
    timestamp = metadata.timestamp(found.timestamp.signed.version + 1, snapshot, supply.keys.load("timestamp"), later)
    metadata_file(supply, "timestamp.json").write_bytes(timestamp.data)
    assert "snapshot.json" in assert_refused(device, "expired").detail
    # It is remembered: the next run begins with it.
    assert_refused(device, "expired")


@pytest.mark.parametrize("name", ["snapshot", "targets", "group-default"])
def test_metadata_of_another_state_is_a_mixture(supply: Supply, server: LyingServer, device: Device, name: str) -> None:
    supply.clock.turn(days=1)
    supply.publish("2")
    supply.repository.rollout(GROUP, ("canary",))
    found = supply.chain()
    version = found.snapshot.signed.version if name == "snapshot" else found.documents[name].version
    older = metadata_file(supply, chain.versioned(version - 1, name)).read_bytes()
    server.lies[f"/metadata/{chain.versioned(version, name)}"] = older
    assert_refused(device, "mixed")


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "2.group-default.json"])
def test_no_changed_byte_of_metadata_is_taken(supply: Supply, server: LyingServer, device: Device, name: str) -> None:
    supply.publish("2")
    good = metadata_file(supply, name).read_bytes()
    for at in range(0, len(good), max(1, len(good) // 12)):
        server.lies[f"/metadata/{name}"] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        verdict = device.update()
        assert verdict.outcome == "refused", (at, verdict)
        assert verdict.reason in {"bad_signature", "bad_metadata", "mixed"}
    assert bundle_versions.active(device.bundles_dir) == 1
    server.lies.clear()
    assert device.update().outcome == "staged"


def test_a_changed_file_is_refused_and_the_good_one_taken_afterwards(
    supply: Supply, server: LyingServer, device: Device
) -> None:
    supply.publish("2", FILES)
    path = f"/targets/groups/{GROUP}/{hashlib.sha256(DICTIONARY).hexdigest()}.telemetry.zdict"
    server.lies[path] = DICTIONARY[:-1] + b"x"
    assert_refused(device, "mixed")
    assert not bundle_versions.folder_of(device.bundles_dir, 2).exists()
    server.lies.clear()
    assert device.update().outcome == "staged"


def test_metadata_signed_with_a_wrong_key_is_refused(supply: Supply, device: Device) -> None:
    found = supply.chain()
    snapshot = metadata.Document(found.snapshot.signed.version, found.snapshot.to_bytes(metadata.COMPACT))
    forged = metadata.timestamp(9, snapshot, CryptoSigner.generate_ed25519(), supply.clock())
    metadata_file(supply, "timestamp.json").write_bytes(forged.data)
    assert_refused(device, "bad_signature")


def new_root(
    supply: Supply, version: int, replaced: str, signed_by: Callable[[CryptoSigner], list[CryptoSigner]]
) -> bytes:
    """Return a root that trusts a new key in place of one, signed by whom is said."""
    signers, drawn = supply.signers(), CryptoSigner.generate_ed25519()
    public = {name: signer.public_key for name, signer in signers.items()} | {replaced: drawn.public_key}
    return metadata.root(version, public, signed_by(drawn), supply.clock()).data


def test_a_root_signed_by_one_key_of_two_is_refused(supply: Supply, device: Device) -> None:
    one = supply.keys.load("root-2")
    root = new_root(supply, 2, "root-1", lambda drawn: [drawn, one])
    metadata_file(supply, "2.root.json").write_bytes(root)
    assert_refused(device, "bad_signature")


def test_a_root_that_skips_a_version_is_a_rollback(supply: Supply, device: Device) -> None:
    every = [supply.keys.load(name) for name in keys.ROOT_KEYS]
    metadata_file(supply, "2.root.json").write_bytes(new_root(supply, 3, "root-1", lambda drawn: [drawn, *every]))
    assert_refused(device, "rollback")


def test_keys_changed_over_several_roots_are_followed(supply: Supply, device: Device) -> None:
    assert [supply.repository.rotate(name) for name in ("root-1", "timestamp", "releases", "root-2")] == [2, 3, 4, 5]
    supply.publish("2")
    assert device.update().outcome == "staged"


def test_another_repository_with_keys_of_its_own_is_refused(
    supply: Supply, server: LyingServer, device: Device
) -> None:
    other = Supply(supply.folder / "other")
    for number in range(5):
        other.publish(str(number))
    server.folder = other.served
    assert_refused(device, "bad_signature")


def test_data_without_end_is_cut_off(supply: Supply, server: LyingServer, device: Device) -> None:
    supply.publish("2", FILES)
    server.lies["/metadata/timestamp.json"] = lambda: itertools.repeat(b" " * 4_096)
    assert assert_refused(device, "oversized").fetched_bytes < 200_000
    server.lies.clear()
    path = f"/targets/groups/{GROUP}/{hashlib.sha256(DICTIONARY).hexdigest()}.telemetry.zdict"
    server.lies[path] = lambda: itertools.repeat(b" " * 4_096)
    assert assert_refused(device, "oversized").fetched_bytes < 200_000


def test_a_server_that_sends_a_byte_now_and_then_does_not_hold_the_device(server: LyingServer, device: Device) -> None:
    # Every byte takes ten seconds of the device's clock: the pauses are allowed, the sum is not.
    server.lies["/metadata/timestamp.json"] = lambda: itertools.repeat(b" ")
    verdict = device.update(monotonic_s=itertools.count(0.0, 10.0).__next__)
    assert (verdict.outcome, verdict.reason) == ("failed", "slow_server")
    assert verdict.fetched_bytes < 5_000


def test_a_server_that_falls_silent_does_not_hold_the_device(server: LyingServer, device: Device) -> None:
    def silent() -> Iterator[bytes]:
        yield b"{"
        answered.wait(10.0)

    answered = threading.Event()
    server.lies["/metadata/timestamp.json"] = silent
    try:
        verdict = device.update(silence_s=0.2)
    finally:
        answered.set()
    assert (verdict.outcome, verdict.reason) == ("failed", "slow_server")


def test_a_server_that_is_gone_or_says_no_is_tried_again(server: LyingServer, device: Device) -> None:
    server.folder = server.folder / "nothing"
    verdict = device.update()
    assert (verdict.outcome, verdict.reason) == ("failed", "unreachable")
    nobody = replace(device.config, url="https://127.0.0.1:1")
    device.config = nobody
    assert device.update().reason == "unreachable"


def test_a_server_of_another_authority_is_not_talked_to(tmp_path: Path, device: Device) -> None:
    with supplied(tmp_path / "other") as (_, other, _):
        device.config = replace(device.config, url=other.url)
        verdict = device.update()
    assert (verdict.outcome, verdict.reason) == ("failed", "unreachable")
    assert other.asked == []


# What an attacker can do who has some of the keys, or an operator by mistake.


def test_a_signed_timestamp_that_names_an_older_snapshot_is_a_rollback(supply: Supply, device: Device) -> None:
    first = metadata_file(supply, "1.snapshot.json").read_bytes()
    forged = metadata.timestamp(9, metadata.Document(1, first), supply.keys.load("timestamp"), supply.clock())
    metadata_file(supply, "timestamp.json").write_bytes(forged.data)
    assert_refused(device, "rollback")


def test_a_signed_snapshot_that_names_an_older_role_is_a_rollback(supply: Supply, device: Device) -> None:
    supply.publish("2")
    assert device.update().outcome == "staged"
    older = metadata.Document(1, metadata_file(supply, "1.group-default.json").read_bytes())
    signers, found = supply.signers(), supply.chain()
    snapshot = metadata.snapshot(9, {**found.documents, "group-default": older}, signers["snapshot"], supply.clock())
    metadata_file(supply, "9.snapshot.json").write_bytes(snapshot.data)
    timestamp = metadata.timestamp(9, snapshot, signers["timestamp"], supply.clock())
    metadata_file(supply, "timestamp.json").write_bytes(timestamp.data)
    assert_refused(device, "rollback")


def test_an_older_number_under_newer_metadata_is_a_rollback(supply: Supply, device: Device) -> None:
    supply.forge({BUNDLE_FILE: manifest(release=Release(GROUP, 0))})
    assert_refused(device, "rollback")


def test_a_bundle_that_names_another_content_than_was_signed_is_a_mixture(supply: Supply, device: Device) -> None:
    document = replace(bundle_with("2", FILES), release=Release(GROUP, 2))
    supply.forge({BUNDLE_FILE: bundles.encode(document), "telemetry.zdict": b"another"})
    assert_refused(device, "mixed")


def test_a_file_above_the_limit_is_not_even_asked_for(supply: Supply, server: LyingServer, device: Device) -> None:
    document = replace(bundle_with("2", FILES), release=Release(GROUP, 2))
    supply.forge({BUNDLE_FILE: bundles.encode(document), **FILES}, lengths={"telemetry.zdict": FILE_BYTES_MAX + 1})
    assert_refused(device, "oversized")
    assert not [path for path in server.asked if path.endswith("telemetry.zdict")]


@pytest.mark.parametrize(
    "name", ["../../active", "/etc/cron.d/x", "a/b", "..", ".hidden", "", "名", "bundle.json", "a\0b"]
)
def test_a_file_name_that_leaves_the_folder_is_refused(supply: Supply, device: Device, name: str) -> None:
    document = replace(bundle_with("2", FILES), release=Release(GROUP, 2))
    document = replace(document, dictionaries=(replace(document.dictionaries[0], file=name),))
    supply.forge({BUNDLE_FILE: bundles.encode(document)})
    if name:
        assert_refused(device, "unsafe_name")
    else:  # no file at all: the bundle does not load
        assert_refused(device, "unusable")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (manifest(release=Release("canary", 2)), "foreign_group"),
        (manifest(release=Release(GROUP, 2, "99.0")), "agent_too_old"),
        (manifest(release=Release(GROUP, 2, "newest")), "unsafe_name"),
        (manifest(release=None), "unusable"),
        (b"\xff", "unusable"),
        (manifest(contracts=()), "unusable"),
        (manifest(models=(Model("m", "1", "m.onnx", hashlib.sha256(b"no").hexdigest(), ("f1",), 0.5, 64),)), "mixed"),
    ],
)
def test_a_signed_bundle_that_is_not_for_this_device_is_refused(
    supply: Supply, device: Device, data: bytes, reason: str
) -> None:
    supply.forge({BUNDLE_FILE: data})
    assert_refused(device, reason)


def test_a_model_that_does_not_load_is_refused_once_and_not_fetched_again(
    supply: Supply, server: LyingServer, device: Device
) -> None:
    model = Model("m", "1", "m.onnx", hashlib.sha256(b"no model").hexdigest(), ("f1",), 0.5, 64)
    document = replace(bundle_with("2", model=model), release=Release(GROUP, 2))
    supply.forge({BUNDLE_FILE: bundles.encode(document), "m.onnx": b"no model"})
    assert "m.onnx is no ONNX model" in assert_refused(device, "unusable").detail
    asked = len(server.asked)
    assert_refused(device, "unusable")
    assert not [path for path in server.asked[asked:] if path.startswith("/targets/")]
    # A newer agent tries it again.
    device.update(agent_version="0.2.0")
    assert bundle_versions.refusal_of(device.bundles_dir, 2, "0.2.0") is not None


def test_what_the_device_lost_of_its_metadata_it_fetches_again(supply: Supply, device: Device) -> None:
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        (device.bundles_dir / "metadata" / name).write_bytes(b"damaged")
    supply.publish("2")
    assert device.update().outcome == "staged"
    shutil.rmtree(device.bundles_dir / "metadata")
    assert device.update().outcome == "staged"


def test_a_verdict_survives_its_json_form(device: Device) -> None:
    verdict = device.update()
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
    assert verdict.outcome == "current"
