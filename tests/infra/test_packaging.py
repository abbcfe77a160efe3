"""A real package, built, unpacked and used: its command runs, its scripts do what they say, its service is sound."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.version import AGENT_VERSION
from infra.packaging import debian, tree
from infra.packaging.tree import PYTHON, SCRIPTS
from tests.edge_agent.device_folder import DEVICE, DeviceFolder

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is on Debian machines only"),
]

SOURCE_DATE_S = 1_750_000_000
EXPOSURE_MAX = 20  # tenths; systemd calls 2.0 and less OK
RUN_S = 120.0
STATE = Path("var", "lib", "fieldlake")


def said(*words: str | Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True, text=True, check=False, timeout=RUN_S, cwd="/", env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = PYTHON if Path(PYTHON).exists() else os.path.realpath(sys.executable)
    recipe = msgspec.structs.replace(tree.recipe(debian.architecture()), python=python)
    first, again = (
        debian.build(recipe, tmp_path_factory.mktemp("deb"), SOURCE_DATE_S, compression)
        for compression in ("zstd",) * 2
    )
    digests = {hashlib.sha256(one.read_bytes()).hexdigest() for one in (first, again)}
    assert len(digests) == 1  # the same sources give the same bytes
    return first


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    said("dpkg-deb", "--raw-extract", package, folder)
    return folder


@pytest.fixture
def root(unpacked: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system on which the package lies; its scripts may change it."""
    folder = tmp_path / "root"
    shutil.copytree(unpacked, folder, symlinks=True, ignore=shutil.ignore_patterns("numpy*", "onnxruntime*"))
    yield folder
    shutil.rmtree(folder)


def script(root: Path, name: str, *words: str, systemd: bool = True) -> list[str]:
    """Run a maintainer script as dpkg does; return what it asked of the system."""
    stubs = root.parent / "stubs"
    stubs.mkdir(exist_ok=True)
    asked = stubs / "asked"
    asked.write_text("")
    for command, does in {"adduser": "", "systemctl": "", "getent": "exit 2", "install": 'mkdir -p "$last"'}.items():
        stub = stubs / command
        stub.write_text(f'#!/bin/sh\nfor last; do :; done\necho "{command} $*" >>"{asked}"\n{does}\n')
        stub.chmod(0o755)
    if systemd:
        (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    said("sh", root / "DEBIAN" / name, *words, DPKG_ROOT=str(root), PATH=f"{stubs}:{os.environ['PATH']}")
    return asked.read_text().splitlines()


def test_the_command_answers_from_where_it_was_unpacked(unpacked: Path, tmp_path: Path) -> None:
    command = unpacked / "usr/bin/fieldlake-edge"
    assert said(command, "version").strip() == AGENT_VERSION
    assert "python -m edge_agent" in said(command, "run", "--help")
    assert "usage: fieldlake-edge COMMAND" in said(command, "--help")
    device = DeviceFolder(tmp_path)
    device.written()
    where = ("--config", str(device.config_file))
    assert f"device {DEVICE}" in (found := said(command, "doctor", "--offline", *where))
    assert found.endswith("\nhealthy\n")
    assert "100 events of telemetry" in said(command, "try", "--sample", str(device.sample), *where)


def test_a_folder_that_one_stands_in_is_not_searched_for_code(unpacked: Path, tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('taken from here')")
    done = subprocess.run(
        [unpacked / "usr/bin/fieldlake-edge", "version"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, AGENT_VERSION)


def test_files_belong_to_root_and_nobody_else_may_write_them(package: Path) -> None:
    lines = said("dpkg-deb", "--contents", package).splitlines()
    assert len(lines) > 500
    for line in lines:
        mode, owner = line.split()[:2]
        assert owner == "root/root", line
        assert mode[0] == "l" or (mode[5], mode[8]) == ("-", "-"), line  # writable for group, for others
        assert not set(mode) & set("sStT"), line
    assert not [line for line in lines if line.endswith((".pyc", ".pth")) or "__pycache__" in line or "/tests/" in line]


def test_control_files_name_what_is_there(unpacked: Path) -> None:
    control = dict(re.findall(r"^([\w-]+): (.*)$", (unpacked / "DEBIAN/control").read_text(), re.MULTILINE))
    assert (control["Package"], control["Version"]) == ("fieldlake-edge", AGENT_VERSION)
    lines = (unpacked / "DEBIAN/md5sums").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {
        str(path.relative_to(unpacked))
        for path in unpacked.rglob("*")
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts and path.suffix != ".pyc"
    }
    assert sums.keys() == files
    some = sorted(files)[::40]
    assert all(hashlib.md5((unpacked / n).read_bytes(), usedforsecurity=False).hexdigest() == sums[n] for n in some)
    assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/fieldlake/edge.json\n"
    assert not (unpacked / STATE).exists()


@pytest.mark.parametrize("name", [*SCRIPTS, "fieldlake-edge"])
def test_scripts_are_sound_for_any_shell(unpacked: Path, name: str) -> None:
    path = unpacked / ("usr/bin" if name == "fieldlake-edge" else "DEBIAN") / name
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    said("sh", "-n", path)


def test_installing_makes_the_user_and_starts_the_service(root: Path) -> None:
    asked = script(root, "postinst", "configure")
    assert "systemctl enable --now fieldlake-edge.service" in asked
    assert any(line.startswith("adduser --system --group") for line in asked)
    assert (root / STATE).is_dir()
    compiled = list((root / "usr/lib/fieldlake-edge").rglob("edge_agent/__pycache__/agent.*.pyc"))
    # For those who look at an agent, and for the agent, which runs without docstrings.
    assert sorted(path.name.split(".", 2)[2] for path in compiled) == ["opt-2.pyc", "pyc"]


def test_an_upgrade_restarts_only_what_ran(root: Path) -> None:
    script(root, "postinst", "configure")
    assert script(root, "prerm", "upgrade", "0.2.0") == []
    assert not list((root / "usr/lib/fieldlake-edge").rglob("*.pyc"))
    asked = script(root, "postinst", "configure", "0.0.9")
    assert "systemctl try-restart fieldlake-edge.service" in asked
    assert not any("enable" in line for line in asked)


def test_without_systemd_nothing_is_asked_of_it(root: Path) -> None:
    for name, word in (("postinst", "configure"), ("prerm", "remove"), ("postrm", "remove")):
        assert not any(line.startswith("systemctl") for line in script(root, name, word, systemd=False))


@pytest.mark.parametrize("asked_for", [False, True])
def test_a_purge_leaves_what_was_observed_unless_it_was_asked_for(root: Path, asked_for: bool) -> None:
    spool = root / STATE / "spool"
    spool.mkdir(parents=True)
    (spool / "segment-00000001.log").write_bytes(b"events")
    if asked_for:
        (root / STATE / "remove-on-purge").touch()
    assert "disable --now" in " ".join(script(root, "prerm", "remove"))
    script(root, "postrm", "remove")
    assert (spool / "segment-00000001.log").exists()
    (root / "etc/fieldlake/edge.json").unlink()  # dpkg removes conffiles first
    (root / "etc/fieldlake/broker-ca.pem").touch()
    script(root, "postrm", "purge")
    assert (spool / "segment-00000001.log").exists() is not asked_for
    assert not (root / "etc/fieldlake").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_service_is_understood_and_little_exposed(unpacked: Path, tmp_path: Path) -> None:
    unit = unpacked / "usr/lib/systemd/system/fieldlake-edge.service"
    found = tmp_path / unit.name
    # Judged on this machine, where the interpreter lies elsewhere.
    found.write_text(unit.read_text().replace("ExecStart=/", f"ExecStart={unpacked}/"))
    assert said("systemd-analyze", "verify", found) == ""
    judged = said("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE_MAX}", found)
    assert "exposure level" in judged
