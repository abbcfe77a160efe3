"""Which devices have asked for bundles: whom to tell of newer ones. Kept in a file, for the next process."""

import os
from pathlib import Path

import msgspec

from contracts import topics
from contracts.malformed import MALFORMED


class Seen:
    """The names of devices. What is not saved when the process dies is noted again with a device's next question."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._devices = _read(path)
        self._saved = len(self._devices)

    @property
    def devices(self) -> frozenset[str]:
        """All devices that have asked so far."""
        return frozenset(self._devices)

    def note(self, device: str) -> None:
        """Remember a device."""
        self._devices.add(device)

    def save(self) -> None:
        """Write the names if there are new ones. Raises OSError."""
        if len(self._devices) == self._saved:
            return
        partial = self._path.with_name(f"{self._path.name}.partial")
        partial.write_bytes(msgspec.json.encode(sorted(self._devices)))
        os.replace(partial, self._path)
        self._saved = len(self._devices)


def _read(path: Path) -> set[str]:
    try:
        names = msgspec.json.decode(path.read_bytes(), type=list[str])
    except FileNotFoundError:
        return set()
    except MALFORMED:
        return set()  # devices note themselves again with their next question
    return {name for name in names if topics.is_origin(name)}
