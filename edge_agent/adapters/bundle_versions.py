"""All bundles that a device keeps, one folder per release, and which of them is active.

    files/{sha256}     every file once, whichever releases name it
    {number}/          one release: its document, and its files as hard links; complete and checked once it has its name
    staging/           a release that is not yet
    active             a symbolic link to the folder in force, replaced by a rename
    refused.json       releases that are not tried again
    rollout.json       how the newest one fares, see `bundle_shelf`
    metadata/          what the repository has signed and this device has trusted

The agent reads through `active`, so that a bundle of one release is loaded from one folder whatever happens meanwhile.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contracts.malformed import MALFORMED

FILES: Final = "files"
STAGING: Final = "staging"
ACTIVE: Final = "active"
REFUSED: Final = "refused.json"
METADATA: Final = "metadata"
KEPT_FOR_ROLLBACK: Final = 2  # releases older than the active one; a third has never been wanted within a week
KEPT_ON_TRIAL: Final = 2  # releases newer than it: the one that the agent tries, and one that came meanwhile
REFUSALS_MAX: Final = 50  # entries; by then the oldest are no longer published


class Refusal(Struct, frozen=True):
    """A release that this agent does not take. A newer agent tries it again."""

    release: int
    agent_version: str
    reason: str
    detail: str


def active(folder: Path) -> int | None:
    """Return the release in force, None before the first."""
    try:
        name = os.readlink(folder / ACTIVE)
    except OSError:
        return None
    return int(name) if name.isdecimal() else None


def numbers(folder: Path) -> tuple[int, ...]:
    """Return the releases that are complete and checked, oldest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return tuple(sorted(int(name) for name in names if name.isdecimal()))


def folder_of(folder: Path, release: int) -> Path:
    """Return the folder of one release."""
    return folder / str(release)


def activate(folder: Path, release: int) -> None:
    """Put a release in force, in one step; it holds after a power cut. Raises OSError."""
    if not folder_of(folder, release).is_dir():
        raise FileNotFoundError(2, "no such release", str(folder_of(folder, release)))
    pending = folder / f"{ACTIVE}.next"
    pending.unlink(missing_ok=True)
    pending.symlink_to(str(release))
    pending.replace(folder / ACTIVE)
    sync_folder(folder)


def refusal_of(folder: Path, release: int, agent_version: str) -> Refusal | None:
    """Return why this agent refused a release, None when it did not."""
    return next((r for r in _refusals(folder) if r.release == release and r.agent_version == agent_version), None)


def refusals(folder: Path, agent_version: str) -> dict[int, str]:
    """Return the releases that this agent refused, and why."""
    return {r.release: r.detail for r in _refusals(folder) if r.agent_version == agent_version}


def refuse(folder: Path, refusal: Refusal) -> None:
    """Remember not to try a release again. Raises OSError."""
    others = [r for r in _refusals(folder) if r.release != refusal.release]
    path = folder / f"{REFUSED}.next"
    write_durably(path, msgspec.json.encode([*others, refusal][-REFUSALS_MAX:]))
    path.replace(folder / REFUSED)
    sync_folder(folder)


def prune(folder: Path) -> None:
    """Remove what neither the active release, nor one to go back to, nor one that waits for its trial needs."""
    in_force = active(folder)
    if in_force is None:
        return
    older = [number for number in numbers(folder) if number < in_force]
    newer = [number for number in numbers(folder) if number > in_force]
    for number in (*older[:-KEPT_FOR_ROLLBACK], *newer[:-KEPT_ON_TRIAL]):
        # Under its number a folder is complete; while it is emptied it must not bear one.
        clear_staging(folder)
        folder_of(folder, number).rename(folder / STAGING)
    clear_staging(folder)
    for file in (folder / FILES).glob("*"):
        if file.stat().st_nlink == 1:  # no release links to it
            file.unlink()


def clear_staging(folder: Path) -> None:
    """Remove what a run that did not come to its end has left."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that survives a power cut once this returns; its name does after `sync_folder`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refusals(folder: Path) -> list[Refusal]:
    try:
        return msgspec.json.decode((folder / REFUSED).read_bytes(), type=list[Refusal])
    except FileNotFoundError:
        return []
    except (*MALFORMED, OSError):
        return []  # a damaged register costs one more try of a release, which is refused again
