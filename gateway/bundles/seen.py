"""Which devices have asked for bundles: whom to tell of newer ones. Kept in a file, for the next process."""

import os
from pathlib import Path

import msgspec

from contracts import topics
from contracts.malformed import MALFORMED


class Seen:
    """The names of devices, on the disk as soon as they are noted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._devices = _read(path)

    @property
    def devices(self) -> frozenset[str]:
        """All devices that have asked so far."""
        return self._devices

    def note(self, device: str) -> None:
        """Remember a device. Raises OSError."""
        if device in self._devices:
            return
        self._devices = self._devices | {device}
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.write_bytes(msgspec.json.encode(sorted(self._devices)))
        os.replace(partial, self._path)


def _read(path: Path) -> frozenset[str]:
    try:
        names = msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return frozenset()
    except MALFORMED:
        return frozenset()  # devices note themselves again with their next question
    return frozenset(name for name in names if topics.is_origin(name))
