"""A disk in memory that forgets, fails and stops at any step, for tests and the simulation."""

import errno
import random
from collections.abc import Mapping


class Crash(BaseException):
    """The process or the machine has just gone."""


class MemoryDisk:
    """Implements `ports.Disk`. `fail_after` operations the disk is full; `crash_after` operations the power is gone.

    `files` is what a reader sees, `durable` how much of each file would survive a power cut.
    """

    def __init__(self, files: Mapping[str, bytes] | None = None, rng: random.Random | None = None) -> None:
        self.files: dict[str, bytes] = dict(files or {})
        self.durable: dict[str, int] = {name: len(data) for name, data in self.files.items()}
        self.fail_after: int | None = None
        self.crash_after: int | None = None
        self.capacity_bytes: int | None = None
        self._rng = rng if rng is not None else random.Random(0)

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        data = self.files[name]
        return data[offset:] if length is None else data[offset : offset + length]

    def size(self, name: str) -> int:
        return len(self.files[name])

    def append(self, name: str, data: bytes) -> None:
        self._require(len(data))
        part = data if self._goes_on() else data[: self._rng.randint(0, len(data))]
        self.files[name] = self.files.get(name, b"") + part
        self._stop_if_due()

    def sync(self, name: str) -> None:
        if self._goes_on():
            self.durable[name] = len(self.files[name])
        self._stop_if_due()

    def truncate(self, name: str, length: int) -> None:
        self.files[name] = self.files[name][:length]
        self.durable[name] = min(length, self.durable.get(name, 0))

    def replace(self, name: str, data: bytes) -> None:
        self._require(len(data))  # beside the file that it replaces
        if self._goes_on():
            self.files[name] = data
            self.durable[name] = len(data)
        self._stop_if_due()

    def delete(self, name: str) -> None:
        if self._goes_on():
            self.files.pop(name, None)
            self.durable.pop(name, None)
        self._stop_if_due()

    def shred(self, name: str) -> None:
        if name not in self.files:
            return
        if self._goes_on():
            self.files[name] = self._rng.randbytes(len(self.files[name]))
            self.durable[name] = len(self.files[name])
        self._stop_if_due()
        self.delete(name)

    def reserve(self, name: str, size_bytes: int) -> None:
        self._require(size_bytes - len(self.files.get(name, b"")))
        self.files[name] = bytes(size_bytes)
        self.durable[name] = size_bytes

    def free_bytes(self) -> int | None:
        return None if self.capacity_bytes is None else self.capacity_bytes - sum(map(len, self.files.values()))

    def _require(self, size_bytes: int) -> None:
        free = self.free_bytes()
        if free is not None and size_bytes > free:
            raise OSError(errno.ENOSPC, "No space left on device")

    def cut_power(self) -> None:
        """Lose what was not synced, or a part of it, file by file."""
        for name in list(self.files):
            kept = self._rng.randint(self.durable.get(name, 0), len(self.files[name]))
            if name not in self.durable and self._rng.random() < 0.5:
                del self.files[name]
            else:
                self.files[name] = self.files[name][:kept]
                self.durable[name] = kept

    def _goes_on(self) -> bool:
        if self.fail_after is not None:
            self.fail_after -= 1
        if self.crash_after is not None:
            self.crash_after -= 1
        return not self._is_due()

    def _is_due(self) -> bool:
        return (self.fail_after is not None and self.fail_after < 0) or (
            self.crash_after is not None and self.crash_after < 0
        )

    def _stop_if_due(self) -> None:
        if self.crash_after is not None and self.crash_after < 0:
            raise Crash
        if self.fail_after is not None and self.fail_after < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
