"""Which steps set-up has, in which order, and which of them are still needed. Pure.

A step is described by a stamp: a text that changes whenever its result would. What has been done before left its stamp
behind; the step is needed when the stamp found is not the one expected, or when a step it is rebuilt by is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do.

    `after` must have ended first; `rebuilt_by` are those among them whose work destroys this step's result.
    `tree_mb`, `packages_mb`, `cache_mb` is the room it takes (peak) beside the tree, in the package cache of the
    installer when that is on another disk, and in the cache of artifacts.
    """

    name: str
    stamp: str
    after: tuple[str, ...] = ()
    rebuilt_by: tuple[str, ...] = ()
    tree_mb: int = 0
    packages_mb: int = 0
    cache_mb: int = 0


def needed(steps: tuple[Step, ...], found: Mapping[str, str]) -> tuple[Step, ...]:
    """Return the steps that are not done, in the given order; `found` holds the stamps by step name.

    `steps` must be ordered so that every step comes later than those it waits for.
    """
    chosen: dict[str, Step] = {}
    for step in steps:
        if found.get(step.name) != step.stamp or any(name in chosen for name in step.rebuilt_by):
            chosen[step.name] = step
    return tuple(chosen.values())


@dataclass(frozen=True, slots=True)
class Room:
    """A disk that set-up writes to: any path on it, and what is free."""

    device: int
    folder: str
    free_mb: int


def shortfalls(steps: tuple[Step, ...], tree: Room, packages: Room, cache: Room) -> tuple[str, ...]:
    """Return one line for each disk that has less room than the steps need.

    The installer links packages from its cache into the environments when both are on one disk, so they count once.
    """
    wanted_mb: dict[int, int] = {}
    folders: dict[int, tuple[int, list[str]]] = {}
    packages_mb = sum(step.packages_mb for step in steps) if packages.device != tree.device else 0
    for room, need_mb in (
        (tree, sum(step.tree_mb for step in steps)),
        (packages, packages_mb),
        (cache, sum(step.cache_mb for step in steps)),
    ):
        wanted_mb[room.device] = wanted_mb.get(room.device, 0) + need_mb
        _, names = folders.setdefault(room.device, (room.free_mb, []))
        if need_mb and room.folder not in names:
            names.append(room.folder)
    return tuple(
        f"not enough disk space: set-up needs {wanted_mb[device] / 1000:.1f} GB for {' and '.join(names)}, found "
        f"{free_mb / 1000:.1f} GB free: free {(wanted_mb[device] - free_mb) / 1000:.1f} GB, or point XDG_CACHE_HOME "
        "and UV_CACHE_DIR to a larger disk, and run again"
        for device, (free_mb, names) in folders.items()
        if free_mb < wanted_mb[device]
    )
