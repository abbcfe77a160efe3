"""What the package ships says the same as the code it is for."""

import re
from pathlib import Path

import pytest

from edge_agent.config import load
from edge_agent.core.metrics import METRICS_INTERVAL_S
from edge_agent.environment import AGENT_ENVIRONMENT
from edge_agent.operating.device_checks import MEMORY_BYTES
from infra.packaging import debian, locked, tree
from infra.packaging.errors import PackagingError
from infra.packaging.tree import FILES, Recipe
from infra.setup.paths import repo_root

UNIT = (FILES / "fieldlake-edge.service").read_text(encoding="utf-8")


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def test_the_service_sets_what_the_agent_needs_and_no_more() -> None:
    # The interpreter is told by -I to leave its own variables alone, and finds code that was compiled when installed.
    wanted = {name: value for name, value in AGENT_ENVIRONMENT.items() if not name.startswith("PYTHON")}
    assert dict(entry.split("=") for entry in settings("Environment")) == wanted
    wrapper = (FILES / "fieldlake-edge").read_text(encoding="utf-8")
    assert dict(re.findall(r"(MALLOC_\w+)=(\w+)", wrapper)) == wanted
    assert settings("MemoryMax") == [f"{MEMORY_BYTES // 1_048_576}M"]
    assert settings("MemorySwapMax") == ["0"]
    (watchdog_s,) = settings("WatchdogSec")
    assert float(watchdog_s) > METRICS_INTERVAL_S  # a sign of life comes every second


def test_the_service_is_hardened() -> None:
    for name, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
        "MemoryDenyWriteExecute": "yes",
        "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
        "SystemCallArchitectures": "native",
        "Type": "notify",
        "Restart": "on-failure",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
    }.items():
        assert settings(name) == [value], name


def test_places_in_the_shipped_configuration_are_those_of_the_service(tmp_path: Path) -> None:
    config = load(FILES / "edge.json")
    assert settings("StateDirectory") == ["fieldlake"]
    assert settings("RuntimeDirectory") == ["fieldlake"]
    assert config.bundles is not None
    for path in (config.spool_dir, config.bundles.bundles_dir, config.mqtt.identity_dir):
        assert str(path).startswith("/var/lib/fieldlake/")
    assert config.status_file.startswith("/run/fieldlake/")
    assert config.log_file is None  # the journal bounds itself
    assert settings("ConditionPathExists") == [f"{config.mqtt.identity_dir}/current"]
    assert settings("ExecStart") == [
        "/usr/lib/fieldlake-edge/bin/python3 -I -OO -m edge_agent --config /etc/fieldlake/edge.json"
    ]


def test_the_lock_is_read_as_it_is_written() -> None:
    found = locked.pins((repo_root() / "requirements" / "edge.txt").read_text(encoding="utf-8"))
    assert {"msgspec", "numpy", "onnxruntime", "paho-mqtt", "tuf", "zstandard"} <= found.keys()
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in found.values())
    assert locked.normalised("Paho_MQTT.x") == "paho-mqtt-x"


def packages_of(folder: Path, **versions: str) -> Path:
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"msgspec": "0.22.0"}, None),
        ({"msgspec": "0.21.0"}, "msgspec 0.21.0 for 0.22.0"),
        ({}, "msgspec missing for 0.22.0"),
        ({"msgspec": "0.22.0", "requests": "1"}, "requests 1 for none"),
    ],
)
def test_packages_that_are_not_the_locked_ones_are_refused(
    tmp_path: Path, versions: dict[str, str], said: str | None
) -> None:
    requirements = tmp_path / "edge.txt"
    requirements.write_text("msgspec==0.22.0 \\\n    --hash=sha256:00\n")
    folder = packages_of(tmp_path / "packages", **versions)
    if said is None:
        locked.check(folder, requirements)
    else:
        with pytest.raises(PackagingError, match=re.escape(said)):
            locked.check(folder, requirements)


@pytest.mark.parametrize(("architecture", "said"), [("arm64", "is not for arm64"), ("vax", "expected one of amd64")])
def test_packages_of_another_machine_are_refused(tmp_path: Path, architecture: str, said: str) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "x.cpython-311-x86_64-linux-gnu.so").touch()
    recipe = Recipe(tmp_path / "packages", architecture, None)
    with pytest.raises(PackagingError, match=said):
        tree.lay_out(recipe, tmp_path / "tree")


def test_the_date_is_the_environments_where_it_has_one() -> None:
    assert debian.source_date_s({"SOURCE_DATE_EPOCH": "1700000000"}) == 1_700_000_000
