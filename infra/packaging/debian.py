"""A Debian package from a recipe: the same files give the same bytes."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from infra.packaging.errors import PackagingError
from infra.packaging.tree import PACKAGE, Recipe, lay_out
from infra.setup.paths import repo_root

SOURCE_DATE: Final = "SOURCE_DATE_EPOCH"  # https://reproducible-builds.org/specs/source-date-epoch
BUILD_S: Final = 600.0  # s; compressing 140 MB takes one core some 10 s
Compression: TypeAlias = Literal["zstd", "xz", "gzip", "none"]


def build(recipe: Recipe, out_dir: Path, source_date_s: int, compression: Compression = "zstd") -> Path:
    """Write the package into a folder and return its file.

    `source_date_s`, Unix time in seconds, is the time of every file in it. Raises PackagingError, OSError.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGE}-") as folder:
        tree = Path(folder) / "tree"
        tree.mkdir()
        lay_out(recipe, tree)
        for path in (*tree.rglob("*"), tree):
            os.utime(path, (source_date_s, source_date_s), follow_symlinks=False)
        made = Path(folder) / f"{PACKAGE}_{recipe.version}_{recipe.architecture}.deb"
        # One thread: the blocks of several would depend on how many there are.
        words = [
            "dpkg-deb",
            "--root-owner-group",
            f"-Z{compression}",
            "--threads-max=1",
            "--build",
            str(tree),
            str(made),
        ]
        environment = {**os.environ, SOURCE_DATE: str(source_date_s)}
        done = _run(words, environment)
        if done.returncode != 0:
            raise PackagingError(f"{' '.join(words)}: {done.stderr.strip()}")
        target = out_dir / made.name
        shutil.move(made, target)
    return target


def source_date_s(environment: Mapping[str, str]) -> int:
    """Return when the sources were last changed: as the environment says, else the newest commit.

    Raises PackagingError where neither is known.
    """
    if (said := environment.get(SOURCE_DATE, "")).isdecimal():
        return int(said)
    done = _run(["git", "-C", str(repo_root()), "log", "-1", "--format=%ct"], environment)
    if done.returncode != 0 or not done.stdout.strip().isdecimal():
        raise PackagingError(f"no commit to date the package by: set {SOURCE_DATE} to a Unix time in seconds")
    return int(done.stdout)


def architecture() -> str:
    """Return the machine's, as Debian calls it. Raises PackagingError where dpkg is missing."""
    done = _run(["dpkg", "--print-architecture"], os.environ)
    if done.returncode != 0:
        raise PackagingError(f"dpkg --print-architecture: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(words: list[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            words, env=dict(environment), capture_output=True, text=True, check=False, timeout=BUILD_S
        )
    except FileNotFoundError as error:
        raise PackagingError(
            f"{words[0]}: not found: on a Debian machine it is in the packages dpkg and git"
        ) from error
