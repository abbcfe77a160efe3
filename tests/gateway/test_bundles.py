"""What a device gets from the bundle server: its own group's files, by name, over its own certificate; nothing else."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from contracts import releases
from contracts.errors import ReleaseError
from contracts.releases import Announcement
from edge_agent.adapters import bundle_versions
from gateway.bundles import membership
from gateway.bundles.announcing import Announcer
from gateway.bundles.config import BundlesConfig, read_config
from gateway.bundles.membership import GroupsFile, Membership
from gateway.bundles.paths import Served, served
from gateway.bundles.seen import Seen
from gateway.bundles.server import BundleServer, timestamp_version
from gateway.config import MqttConfig
from gateway.errors import GatewayConfigError
from tests.edge_agent.plant import HOST, Certificates, free_port
from tests.edge_agent.supply import DEVICE, Device, Supply

SHA = "0a" * 32


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/metadata/timestamp.json", Served("metadata/timestamp.json", False)),
        ("/metadata/12.root.json", Served("metadata/12.root.json", True)),
        ("/metadata/3.group-default.json", Served("metadata/3.group-default.json", True)),
        (f"/targets/groups/default/{SHA}.bundle.json", Served(f"targets/groups/default/{SHA}.bundle.json", True)),
        ("/metadata/3.group-canary.json", None),
        (f"/targets/groups/canary/{SHA}.bundle.json", None),
        (f"/targets/groups/default/../canary/{SHA}.bundle.json", None),
        (f"/targets/groups/default/%2e%2e/canary/{SHA}.bundle.json", None),
        ("/metadata/", None),
        ("/", None),
        ("/metadata/root.json", None),
        ("/metadata/0.root.json", None),
        ("/keys/timestamp.pem", None),
        ("/metadata/../../keys/timestamp.pem", None),
        (f"/targets/groups/default/{SHA}.{'x' * 400}", None),
        ("/metadata/.5.snapshot.json.partial", None),
    ],
)
def test_only_names_that_the_repository_makes_are_files(path: str, expected: Served | None) -> None:
    assert served(path, "default") == expected


@given(st.text(), st.sampled_from(["default", "canary"]))
def test_no_path_leaves_the_folder(path: str, group: str) -> None:
    found = served(f"/{path}", group)
    if found is not None:
        assert ".." not in Path(found.path).parts
        assert found.path.partition("/")[0] in ("metadata", "targets")


@given(
    st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True),
)
def test_every_file_of_a_group_is_served_to_it_and_to_no_other(group: str, name: str) -> None:
    folder, _, file = releases.target(group, name).rpartition("/")
    path = f"/targets/{folder}/{SHA}.{file}"
    assert served(path, group) == Served(path[1:], True)
    assert served(path, f"{group}x") is None
    assert served(f"/metadata/7.{releases.role(group)}.json", group) is not None
    assert served(f"/metadata/7.{releases.role(group)}.json", "other-group") is None or group == "other-group"


def test_devices_are_moved_between_groups_while_the_server_runs(tmp_path: Path) -> None:
    file = tmp_path / "groups.json"
    groups = GroupsFile(file)
    assert (groups.group_of("press-01"), groups.named()) == ("default", frozenset())
    membership.assign(file, "press-01", "canary")
    membership.assign(file, "press-02", "presses")
    assert (groups.group_of("press-01"), groups.group_of("press-03")) == ("canary", "default")
    assert groups.named() == {"press-01", "press-02"}
    file.write_bytes(msgspec.json.encode(Membership(None, {"press-01": "canary"})))
    assert groups.group_of("press-03") is None
    file.unlink()
    assert groups.group_of("press-01") == "default"


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b'{"devices":{"a/b":"canary"}}', b'{"devices":{"a":"Canary"}}', b'{"other":1}']
)
def test_a_broken_document_of_groups_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "groups.json"
    file.write_bytes(content)
    with pytest.raises(ReleaseError):
        GroupsFile(file).group_of("press-01")


def test_only_names_of_devices_are_assigned_and_a_refusal_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "groups.json"
    for device, group in (("a/b", "canary"), ("a", "Canary"), ("名", "canary")):
        with pytest.raises(ReleaseError):
            membership.assign(file, device, group)
    assert not file.exists()


def test_who_asked_is_known_to_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    for device in ("press-01", "press-02", "press-02"):
        seen = Seen(file)
        seen.note(device)
        seen.save()
    assert Seen(file).devices == {"press-01", "press-02"}
    file.write_bytes(b"[")
    assert Seen(file).devices == frozenset()


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"timestamp_version":0}', b'{"timestamp_version":"1"}'])
def test_an_announcement_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ReleaseError):
        releases.decode(data)


def test_an_announcement_survives_its_json_form() -> None:
    assert releases.decode(releases.encode(Announcement(7))) == Announcement(7)


def test_a_configuration_names_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for content in (b"", b"{}", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(GatewayConfigError, match=r"config\.json"):
            read_config(file)
    with pytest.raises(GatewayConfigError):
        read_config(tmp_path / "none.json")


class Running:
    """A server in a thread of its own, with a broker that nobody started."""

    def __init__(self, folder: Path, supply: Supply, certificates: Certificates) -> None:
        cert_file, key_file = certificates.issue("bundles-server")
        mqtt = MqttConfig(HOST, free_port(), str(certificates.ca_file), str(cert_file), str(key_file))
        self.config = BundlesConfig(
            HOST, 0, str(cert_file), str(key_file), str(certificates.ca_file), str(supply.served),
            str(folder / "groups.json"), str(folder / "seen.json"), mqtt,
        )  # fmt: skip
        self.seen = Seen(folder / "seen.json")
        self.server = BundleServer(self.config, GroupsFile(folder / "groups.json"), self.seen, Announcer(mqtt))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(10.0)
        self.url = f"https://{HOST}:{port}"

    def close(self) -> None:
        """Stop it."""
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    (tmp_path / "tls").mkdir()
    return Certificates(tmp_path / "tls")


@pytest.fixture
def supply(tmp_path: Path) -> Supply:
    supply = Supply(tmp_path)
    supply.publish("1")
    supply.publish("2", group="canary")
    return supply


@pytest.fixture
def running(tmp_path: Path, supply: Supply, certificates: Certificates) -> Iterator[Running]:
    running = Running(tmp_path, supply, certificates)
    yield running
    running.close()


def get(running: Running, path: str, identity: tuple[Path, Path] | None, ca_file: Path) -> urllib3.BaseHTTPResponse:
    """Ask for a path exactly as it is written."""
    cert_file, key_file = (str(file) for file in identity) if identity else (None, None)
    with urllib3.PoolManager(ca_certs=str(ca_file), cert_file=cert_file, key_file=key_file, retries=False) as pool:
        return pool.request("GET", running.url + path)


def test_a_device_updates_from_it_and_follows_its_group(
    tmp_path: Path, running: Running, supply: Supply, certificates: Certificates
) -> None:
    device = Device(tmp_path / "device", running.url, supply.repository.root(), certificates)
    verdict = device.update()
    assert (verdict.outcome, verdict.release, verdict.timestamp_version) == ("activated", 1, 3)
    assert running.seen.devices == {DEVICE}
    # The server moved it, its own configuration did not: it gets nothing rather than the wrong bundle.
    membership.assign(tmp_path / "groups.json", DEVICE, "canary")
    supply.publish("3")
    verdict = device.update()
    assert (verdict.outcome, verdict.reason) == ("failed", "unreachable")
    assert bundle_versions.active(device.bundles_dir) == 1
    device.config = msgspec.structs.replace(device.config, group="canary")
    assert device.update().outcome == "current"  # release 1 of the other group


def test_nobody_is_let_in_without_a_certificate_of_ours(
    tmp_path: Path, running: Running, certificates: Certificates
) -> None:
    (tmp_path / "foreign").mkdir()
    foreign = Certificates(tmp_path / "foreign").issue(DEVICE)
    for identity in (None, foreign):
        with pytest.raises((urllib3.exceptions.HTTPError, ssl.SSLError, OSError)):
            get(running, "/metadata/timestamp.json", identity, certificates.ca_file)
    assert running.seen.devices == frozenset()


def test_what_is_not_for_a_device_is_not_there(running: Running, supply: Supply, certificates: Certificates) -> None:
    identity = certificates.issue(DEVICE)
    found = supply.chain().files("canary")["groups/canary/bundle.json"]
    wanted = {
        "/metadata/timestamp.json": 200,
        "/metadata/1.group-default.json": 200,
        "/metadata/1.group-canary.json": 404,
        f"/targets/groups/canary/{found.hashes['sha256']}.bundle.json": 404,
        f"/targets/groups/default/..%2fcanary/{found.hashes['sha256']}.bundle.json": 404,
        "/../keys/timestamp.pem": 404,
        "/%2e%2e/keys/timestamp.pem": 404,
        "/": 404,
        "/metadata/": 404,
        "/releases/default/1.json": 404,
    }
    assert {path: get(running, path, identity, certificates.ca_file).status for path in wanted} == wanted
    status = running.server.status(1)
    assert (status.served, status.refused) == (2, len(wanted) - 2)


def test_what_never_changes_may_be_kept_and_the_timestamp_may_not(running: Running, certificates: Certificates) -> None:
    identity = certificates.issue(DEVICE)
    kept = {
        path: get(running, path, identity, certificates.ca_file).headers["Cache-Control"]
        for path in ("/metadata/timestamp.json", "/metadata/1.root.json")
    }
    assert kept["/metadata/timestamp.json"] == "no-store"
    assert "immutable" in kept["/metadata/1.root.json"]


def test_a_broken_document_of_groups_lets_nobody_in(
    tmp_path: Path, running: Running, certificates: Certificates
) -> None:
    (tmp_path / "groups.json").write_bytes(b"{")
    answer = get(running, "/metadata/timestamp.json", certificates.issue(DEVICE), certificates.ca_file)
    assert answer.status == 403
    running.server.announce()


def test_the_version_to_announce_is_the_signed_one(supply: Supply, tmp_path: Path) -> None:
    assert timestamp_version(supply.served / "metadata" / "timestamp.json") == 3
    assert timestamp_version(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_bytes(b'{"signed":{"ver')
    assert timestamp_version(tmp_path / "half.json") is None
