"""The package's files as they lie on a device, and its control files beside them.

| place | what |
| --- | --- |
| `/usr/lib/fieldlake-edge` | a virtual environment on Debian's Python: the locked packages, `contracts`, `edge_agent` |
| `/usr/bin/fieldlake-edge` | the command |
| `/usr/lib/systemd/system` | the service |
| `/etc/fieldlake/edge.json` | the configuration, a conffile |
| `/var/lib/fieldlake` | spool, key and certificate; made when it is installed, and left when it is removed |
"""

import fnmatch
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from edge_agent.version import AGENT_VERSION
from infra.packaging import locked
from infra.packaging.errors import PackagingError
from infra.setup.paths import edge_env, repo_root, site_packages

PACKAGE: Final = "fieldlake-edge"
LIBRARY: Final = Path("usr", "lib", PACKAGE)
CODE: Final = ("contracts", "edge_agent")
PYTHON: Final = "/usr/bin/python3.11"  # Debian 12's; the packages are built for 3.11
INSTALLED_PYTHON: Final = Path("lib", "python3.11", "site-packages")
FILES: Final = Path(__file__).with_name("files")
SCRIPTS: Final = ("postinst", "prerm", "postrm")
CONFFILES: Final = ("/etc/fieldlake/edge.json",)
MULTIARCH: Final = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "armhf": "arm-linux-gnueabihf"}

# What no agent loads: 30 of 170 MB. Metadata and licences of the packages stay.
LEFT_OUT: Final = (
    "*/__pycache__", "*.pyc", "*.pyi", "*.pth", "*/tests", "*/bin", "*.dist-info/RECORD", "*.dist-info/REQUESTED",
    "*.dist-info/INSTALLER", "*.dist-info/direct_url.json", "*.dist-info/uv_cache.json", "numpy/_core/include",
    "onnxruntime/datasets", "onnxruntime/quantization", "onnxruntime/tools", "onnxruntime/transformers",
)  # fmt: skip


class Recipe(Struct, frozen=True):
    """What goes into the package. `requirements` is None for packages that are not to be compared with the lock."""

    site_packages: Path
    architecture: str
    requirements: Path | None
    python: str = PYTHON
    version: str = AGENT_VERSION


def recipe(architecture: str, packages: Path | None = None) -> Recipe:
    """Return the recipe with the device's locked packages, of this machine's environment unless others are given."""
    found = packages if packages is not None else site_packages(edge_env())
    return Recipe(found, architecture, repo_root() / "requirements" / "edge.txt")


def lay_out(recipe: Recipe, tree: Path) -> None:
    """Write every file of the package below `tree`, an empty folder. Raises PackagingError."""
    if recipe.requirements is not None:
        locked.check(recipe.site_packages, recipe.requirements)
    _check_architecture(recipe)
    library = tree / LIBRARY
    installed = library / INSTALLED_PYTHON
    _copy(recipe.site_packages, installed)
    for package in CODE:
        _copy(repo_root() / package, installed / package, only="*.py")
    _environment(library, recipe.python)
    _place(FILES / PACKAGE, tree / "usr/bin" / PACKAGE, 0o755)
    _place(FILES / f"{PACKAGE}.service", tree / "usr/lib/systemd/system" / f"{PACKAGE}.service", 0o644)
    _place(FILES / "edge.json", tree / "etc/fieldlake/edge.json", 0o644)
    _place(repo_root() / "LICENSE", tree / "usr/share/doc" / PACKAGE / "copyright", 0o644)
    _place(repo_root() / "docs/device.md", tree / "usr/share/doc" / PACKAGE / "device.md", 0o644)
    _control(recipe, tree)
    for path in (tree, *tree.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def _control(recipe: Recipe, tree: Path) -> None:
    folder = tree / "DEBIAN"
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    size_kib = sum(-(-path.stat().st_size // 1_024) for path in files)
    control = (
        f"Package: {PACKAGE}\nVersion: {recipe.version}\nArchitecture: {recipe.architecture}\n"
        f"Maintainer: Fieldlake <edge@fieldlake.example>\nInstalled-Size: {size_kib}\n"
        "Depends: python3.11 (>= 3.11.2), adduser, libc6 (>= 2.28), libstdc++6\nRecommends: systemd\n"
        "Section: misc\nPriority: optional\n"
        "Description: Fieldlake's agent on a device\n"
        " Takes events from apps, files and sensors, filters and aggregates them on the device,\n"
        " keeps them in a durable spool and sends them until the lake has them.\n"
    )
    _write(folder / "control", control.encode(), 0o644)
    _write(folder / "conffiles", "".join(f"{name}\n" for name in CONFFILES).encode(), 0o644)
    sums = (
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(tree)}\n"
        for path in files
    )
    _write(folder / "md5sums", "".join(sums).encode(), 0o644)
    for name in SCRIPTS:
        _place(FILES / name, folder / name, 0o755)


def _environment(library: Path, python: str) -> None:
    """Make it a virtual environment (PEP 405): found by the interpreter through the file beside its folder."""
    home = os.path.dirname(python)
    _write(library / "pyvenv.cfg", f"home = {home}\ninclude-system-site-packages = false\n".encode(), 0o644)
    (library / "bin").mkdir()
    (library / "bin" / "python3").symlink_to(python)


def _check_architecture(recipe: Recipe) -> None:
    wanted = MULTIARCH.get(recipe.architecture)
    if wanted is None:
        raise PackagingError(f"architecture {recipe.architecture!r}: expected one of {', '.join(MULTIARCH)}")
    for library in recipe.site_packages.rglob("*.cpython-*.so"):
        if wanted not in library.name:
            raise PackagingError(
                f"{library}: is not for {recipe.architecture}: name a folder with that architecture's packages"
            )


def _copy(source: Path, target: Path, only: str = "*") -> None:
    """Copy a folder's files, those left out that no agent loads."""
    for path in sorted(_files(source, source)):
        if fnmatch.fnmatch(path.name, only):
            mode = 0o755 if path.suffix == ".so" or ".so." in path.name else 0o644
            _place(path, target / path.relative_to(source), mode)


def _files(folder: Path, base: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        name = path.relative_to(base).as_posix()
        if any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(f"./{name}", pattern) for pattern in LEFT_OUT):
            continue
        if path.is_dir():
            yield from _files(path, base)
        else:
            yield path


def _place(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _write(target: Path, data: bytes, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)
