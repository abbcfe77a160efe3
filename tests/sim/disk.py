"""A disk that is full, fails or rots for a while, beside what `MemoryDisk` does."""

import errno
import os
import random

from edge_agent.core.spool.record import scan, scan_index
from tests.edge_agent.worlds import Crash, MemoryDisk

FAILS_CHANCE = 0.5  # of an operation while the disk has trouble: some go well in between


class TroubledDisk(MemoryDisk):
    """While `trouble` is an error number, operations that it concerns fail with it, often."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng=rng)
        self.trouble: int | None = None
        self.failed = 0
        self.torn = 0

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self.trouble == errno.EIO:
            self._fail()
        return super().read(name, offset, length)

    def append(self, name: str, data: bytes) -> None:
        if self.trouble is not None and self._rng.random() < FAILS_CHANCE:
            self.files[name] = self.files.get(name, b"") + data[: self._rng.randint(0, len(data))]
            self._raise()
        before = len(self.files.get(name, b""))
        try:
            super().append(name, data)
        except Crash:
            self.torn += 0 < len(self.files[name]) - before < len(data)
            raise

    def sync(self, name: str) -> None:
        if self.trouble == errno.EIO:
            self._fail()
        super().sync(name)

    def replace(self, name: str, data: bytes) -> None:
        if self.trouble is not None and self._rng.random() < FAILS_CHANCE:
            self.files[f"{name}.tmp"] = data[: self._rng.randint(0, len(data))]
            self._raise()
        self.files.pop(f"{name}.tmp", None)
        super().replace(name, data)

    def truncate(self, name: str, length: int) -> None:
        if self.trouble == errno.EIO:
            self._fail()
        super().truncate(name, length)

    def delete(self, name: str) -> None:
        if self.trouble == errno.EIO:
            self._fail()
        super().delete(name)

    def reserve(self, name: str, size_bytes: int) -> None:
        if self.trouble is not None:
            self._raise()
        super().reserve(name, min(size_bytes, 4_096))  # room is not counted here

    def rot(self) -> str | None:
        """Flip a bit of a record that is durable with its index; return where, None without such a record.

        Where both are gone, nobody can know how many events the record had.
        """
        logs = [name for name in self.files if name.endswith(".log") and self.durable.get(name)]
        if not logs:
            return None
        name = self._rng.choice(logs)
        index = f"{name[:-4]}.idx"
        known = {entry.meta.number for entry in scan_index(self.files.get(index, b""))}
        found = scan(self.files[name]).frames
        frames = [one for one in found if one.end <= self.durable[name] and one.meta.number in known]
        if not frames:
            return None
        victim = self._rng.choice(frames)
        at = self._rng.randrange(victim.offset, victim.end)
        data = self.files[name]
        self.files[name] = data[:at] + bytes([data[at] ^ 1 << self._rng.randrange(8)]) + data[at + 1 :]
        self.durable[index] = len(self.files[index])
        return f"{name} at {at}"

    def _fail(self) -> None:
        if self._rng.random() < FAILS_CHANCE:
            self._raise()

    def _raise(self) -> None:
        assert self.trouble is not None
        self.failed += 1
        raise OSError(self.trouble, os.strerror(self.trouble))
