"""Which group a device belongs to: a small document, read again when it changes."""

from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contracts import releases, topics
from contracts.errors import ReleaseError
from contracts.malformed import MALFORMED
from contracts.releases import DEFAULT_GROUP


class Membership(Struct, frozen=True, forbid_unknown_fields=True):
    """The document. Devices that it does not name belong to `default_group`; null lets nobody else in."""

    default_group: str | None = DEFAULT_GROUP
    devices: dict[str, str] = {}


class Groups(Protocol):
    """Who belongs where; a registry of devices is another implementation."""

    def group_of(self, device: str) -> str | None:
        """Return a device's group, None for a device that is to get nothing."""
        ...

    def named(self) -> frozenset[str]:
        """Return the devices that are known without having asked."""
        ...


class GroupsFile:
    """Implements `Groups` over a file; without one every device belongs to the default group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._membership = Membership()

    def group_of(self, device: str) -> str | None:
        self._follow()
        return self._membership.devices.get(device, self._membership.default_group)

    def named(self) -> frozenset[str]:
        self._follow()
        return frozenset(self._membership.devices)

    def _follow(self) -> None:
        """Read the file if it is another one. Raises ReleaseError: a broken document must not let devices change."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._membership = None, Membership()
            return
        if (stamp := (stat.st_mtime_ns, stat.st_ino)) != self._stamp:
            self._membership = decode(self._path.read_bytes(), str(self._path))
            self._stamp = stamp


def decode(data: bytes, label: str) -> Membership:
    """Parse and check the document. Raises ReleaseError."""
    try:
        found = msgspec.json.decode(data, type=Membership)
    except MALFORMED as error:
        raise ReleaseError(f"{label}: expected groups of devices in JSON: {error}: correct it there") from error
    for group in {*found.devices.values(), found.default_group} - {None}:
        releases.check_group(str(group))
    if wrong := [device for device in found.devices if not topics.is_origin(device)]:
        raise ReleaseError(f"{label}: {wrong[0]!r} is no name of a device: correct it there")
    return found


def assign(path: Path, device: str, group: str) -> None:
    """Put a device into a group, in the file. Raises ReleaseError."""
    found = decode(path.read_bytes(), str(path)) if path.exists() else Membership()
    changed = replace(found, devices=found.devices | {device: group})
    data = msgspec.json.format(msgspec.json.encode(changed))
    decode(data, f"device {device!r} in group {group!r}")
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(data)
    partial.replace(path)
