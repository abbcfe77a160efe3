"""What is there already: the stamps that finished steps left behind, and the disks that the next ones write to."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infra.setup import artifacts, packages, paths
from infra.setup.artifacts import Artifact
from infra.setup.plan import Room, Step

STAMP_NAME: Final = ".fieldlake-stamp"
PROJECT_STAMP_NAME: Final = ".fieldlake-project-stamp"
TRINO_PLUGINS: Final = (
    "geospatial",  # the PostgreSQL connector does not load without its types
    "iceberg",
    "memory",
    "password-authenticators",
    "postgresql",
    "resource-group-managers",
    "session-property-managers",
    "tpch",
)
ENVIRONMENTS: Final[Mapping[str, Path]] = {
    "lake": paths.lake_env(),
    "edge": paths.edge_env(),
    "flink": paths.flink_env(),
    "quality": paths.quality_env(),
    "data": paths.data_env(),
}
# Room that each step takes at its peak, as measured and rounded up: (tree_mb, packages_mb, cache_mb).
_ROOM: Final[Mapping[str, tuple[int, int, int]]] = {
    "tools": (90, 40, 0),
    "lake": (1600, 1600, 0),
    "edge": (60, 60, 0),
    "flink": (900, 900, 0),
    "quality": (250, 250, 0),
    "data": (20, 20, 0),
    "get-trino": (0, 0, 850),
    "get-kafka": (0, 0, 50),
    "get-s3proxy": (0, 0, 110),
    "get-flink-connector": (0, 0, 15),
    "trino": (0, 0, 950),
    "flink-jars": (60, 0, 0),
}


def requirements_file(name: str) -> Path:
    """Return the hashed requirement file of an environment."""
    return paths.repo_root() / "requirements" / f"{name}.txt"


def steps(wanted_packages: tuple[str, ...]) -> tuple[Step, ...]:
    """Return every step with the stamp that it leaves behind, each later than those it waits for."""
    groups = artifacts.load()
    before_tools = ("packages",) if "python3.11-venv" in wanted_packages else ()
    return (
        _step("packages", "installed"),
        _step("tools", _digest(requirements_file("tools")), before_tools),
        *(_step(f"get-{name}", "complete", ("tools",)) for name in groups),
        *(_step(name, _digest(requirements_file(name)), ("tools",)) for name in ENVIRONMENTS),
        _step("project", _digest(paths.repo_root() / "pyproject.toml"), ("lake",), ("lake",)),
        _step("trino", _trino_stamp(groups["trino"]), ("get-trino",)),
        _step("kafka", _names(groups["kafka"]), ("get-kafka",)),
        _step("flink-jars", "copied", ("flink", "get-flink-connector"), ("flink",)),
    )


def stamps(wanted_packages: tuple[str, ...]) -> dict[str, str]:
    """Return the stamps of what is there, by step name; a step without one has nothing to show."""
    groups = artifacts.load()
    trino = _read(paths.trino_home() / STAMP_NAME)
    found = {
        "packages": "missing" if wanted_packages else "installed",
        "tools": _environment_stamp(paths.tools_env()),
        "project": _read(paths.lake_env() / PROJECT_STAMP_NAME),
        "trino": trino,
        "kafka": "\n".join(sorted(file.name for file in paths.kafka_libs_dir().glob("*.jar") if file.is_file())),
        "flink-jars": "copied" if all(is_copied(source, target) for source, target in flink_jars()) else "",
    }
    found |= {name: _environment_stamp(folder) for name, folder in ENVIRONMENTS.items()}
    for name, group in groups.items():
        there = all(artifacts.is_complete(artifact, paths.artifacts_dir()) for artifact in group)
        found[f"get-{name}"] = "complete" if there else ""
    if trino == _trino_stamp(groups["trino"]):
        found["get-trino"] = "complete"  # the tarball is dropped once its content is in place
    return found


def flink_jars() -> tuple[tuple[Path, Path], ...]:
    """Return (source, target) of the jars that Flink needs in its `lib/` and that its wheel does not put there.

    Without `flink-python` there, the second Python job in a task manager fails forever.
    """
    library = paths.flink_home() / "lib"
    python_jar = f"flink-python-{paths.FLINK_VERSION}.jar"
    connector = paths.flink_kafka_connector_jar()
    return ((paths.flink_home() / "opt" / python_jar, library / python_jar), (connector, library / connector.name))


def is_copied(source: Path, target: Path) -> bool:
    """Tell whether `target` is a whole copy of `source`; copies get their name last, so size is enough."""
    return source.is_file() and target.is_file() and source.stat().st_size == target.stat().st_size


def wanted_packages() -> tuple[str, ...]:
    """Return the Debian packages that are missing."""
    return packages.missing(
        has_mosquitto=paths.mosquitto_binary().exists(),
        has_ensurepip=importlib.util.find_spec("ensurepip") is not None,
    )


def privilege() -> packages.Privilege:
    """Find out what this user may install. Asks for a password only where a person can answer."""
    has_sudo = shutil.which("sudo") is not None
    is_root = os.geteuid() == 0
    ready = has_sudo and not is_root and _runs("sudo", "-n", "true")
    if has_sudo and not is_root and not ready and sys.stdin.isatty():
        print("A Debian package is missing; sudo asks for your password to install it.", flush=True)
        ready = _runs("sudo", "-v")
    return packages.Privilege(is_root, shutil.which("apt-get") is not None, has_sudo, ready)


def rooms() -> tuple[Room, Room, Room]:
    """Return the disks of the tree, of the installer's package cache and of the artifacts."""
    packages_cache = Path(os.environ.get("UV_CACHE_DIR") or paths.cache_dir().parent / "uv")
    return _room(paths.repo_root()), _room(packages_cache), _room(paths.cache_dir())


def _step(name: str, stamp: str, after: tuple[str, ...] = (), rebuilt_by: tuple[str, ...] = ()) -> Step:
    tree_mb, packages_mb, cache_mb = _ROOM.get(name, (0, 0, 0))
    return Step(name, stamp, after, rebuilt_by, tree_mb, packages_mb, cache_mb)


def _trino_stamp(group: tuple[Artifact, ...]) -> str:
    return "\n".join((*(artifact.sha256 for artifact in group), *TRINO_PLUGINS))


def _names(group: tuple[Artifact, ...]) -> str:
    return "\n".join(sorted(artifact.filename for artifact in group))


def _environment_stamp(environment: Path) -> str:
    # A stamp counts only while the interpreter it was made with is still there.
    return _read(environment / STAMP_NAME) if paths.python_of(environment).exists() else ""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _runs(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _room(folder: Path) -> Room:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return Room(existing.stat().st_dev, str(folder), shutil.disk_usage(existing).free // 1_000_000)
