"""What a benchmark leaves behind: `benchmarks/results/NAME.json`, and plots beside it."""

import datetime as dt
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import psutil
from msgspec import Struct

RESULTS_DIR: Final = Path(__file__).resolve().parent / "results"
QUICK_DIR: Final = RESULTS_DIR.with_name("out")  # runs of small sizes: they show that it works and measure nothing

Figures: TypeAlias = dict[str, float | int | bool | None]  # None: it could not be measured


class Result(Struct, frozen=True):
    """One run. `how` states workload and load generator; every figure's key carries its unit."""

    name: str
    commit: str
    when: str
    machine: str
    how: dict[str, Any]
    figures: Figures


def result(name: str, how: dict[str, Any], figures: Figures) -> Result:
    """Return a result stamped with this commit, this moment and this machine."""
    return Result(name, _commit(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), machine(), how, figures)


def write(measured: Result, folder: Path = RESULTS_DIR) -> Path:
    """Write the JSON file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{measured.name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured)) + b"\n")
    return path


def machine() -> str:
    """Return what the figures were measured on."""
    memory_gib = psutil.virtual_memory().total / 2**30
    cores = f"{os.cpu_count()} cores {platform.machine()}"
    return f"{cores}, {memory_gib:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def _commit() -> str:
    root = RESULTS_DIR.parents[1]
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
    # Results themselves aside: a benchmark has replaced its own plot by now.
    status = ["git", "status", "--porcelain", "--", ".", f":!{RESULTS_DIR.relative_to(root)}"]
    changed = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True)
    return head.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
