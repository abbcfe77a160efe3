"""A folder as it is, under changes that stay in memory: for those who look at a spool and must not touch it."""

import os
from pathlib import Path


class OverlaidDisk:
    """Implements `ports.Disk`. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, bytes] = {}  # files that were replaced
        self._kept: dict[str, int] = {}  # bytes of a file that still count
        self._tails: dict[str, bytes] = {}  # what follows them
        self._deleted: set[str] = set()

    @property
    def cut_bytes(self) -> int:
        """Bytes that were cut off the ends of files."""
        return sum(max(0, (self._folder / name).stat().st_size - kept) for name, kept in self._kept.items())

    def names(self) -> list[str]:
        there = {*os.listdir(self._folder), *self._written, *self._tails}
        return sorted(there - self._deleted)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else offset + length
        if name in self._written:
            return self._written[name][offset:end]
        kept, tail = self._kept_of(name), self._tails.get(name, b"")
        head = b""
        if offset < kept:
            with open(self._folder / name, "rb") as file:
                file.seek(offset)
                head = file.read((kept if end is None else min(kept, end)) - offset)
        return head + tail[max(0, offset - kept) : None if end is None else max(0, end - kept)]

    def size(self, name: str) -> int:
        if name in self._written:
            return len(self._written[name])
        return self._kept_of(name) + len(self._tails.get(name, b""))

    def append(self, name: str, data: bytes) -> None:
        self._deleted.discard(name)
        if name in self._written:
            self._written[name] += data
        else:
            self._tails[name] = self._tails.get(name, b"") + data

    def sync(self, name: str) -> None:
        self.size(name)

    def truncate(self, name: str, length: int) -> None:
        if name in self._written:
            self._written[name] = self._written[name][:length]
            return
        kept = self._kept_of(name)
        self._tails[name] = self._tails.get(name, b"")[: max(0, length - kept)]
        self._kept[name] = min(kept, length)

    def replace(self, name: str, data: bytes) -> None:
        self._deleted.discard(name)
        self._written[name] = data

    def delete(self, name: str) -> None:
        self._deleted.add(name)
        self._written.pop(name, None)
        self._tails.pop(name, None)
        self._kept[name] = 0

    def shred(self, name: str) -> None:
        self.delete(name)

    def reserve(self, name: str, size_bytes: int) -> None:
        self.replace(name, bytes(size_bytes))

    def free_bytes(self) -> int | None:
        return None

    def _kept_of(self, name: str) -> int:
        if name in self._kept:
            return self._kept[name]
        path = self._folder / name
        if name in self._tails and not path.exists():
            return 0
        return path.stat().st_size
