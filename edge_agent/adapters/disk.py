"""The spool's folder on a real file system."""

import fcntl
import os
from pathlib import Path
from typing import Final

from edge_agent.errors import SpoolError

LOCK_FILE: Final = "lock"


class FolderDisk:
    """Implements `ports.Disk`. Files are kept for their owner alone: they hold personal data.

    One process at a time: two would give the same numbers to different events. Raises SpoolError for the second.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._lock = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CREAT, 0o600)  # held until the process ends
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SpoolError(
                f"spool {folder}: another process has it open: stop that one, or give each device a folder of its own"
            ) from error
        self._unsynced_names: set[str] = set()

    def close(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock)

    def names(self) -> list[str]:
        return os.listdir(self._folder)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length is None:
            with open(self._folder / name, "rb") as file:
                file.seek(offset)
                return file.read()
        descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def size(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    def append(self, name: str, data: bytes) -> None:
        path = self._folder / name
        if not path.exists():
            self._unsynced_names.add(name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def sync(self, name: str) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if name in self._unsynced_names:
            self._sync_folder()
            self._unsynced_names.clear()

    def truncate(self, name: str, length: int) -> None:
        os.truncate(self._folder / name, length)

    def replace(self, name: str, data: bytes) -> None:
        temporary = self._folder / f"{name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, self._folder / name)
        self._sync_folder()

    def delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)
        self._sync_folder()

    def shred(self, name: str) -> None:
        try:
            descriptor = os.open(self._folder / name, os.O_WRONLY)
        except FileNotFoundError:
            return
        try:
            _write_all(descriptor, os.urandom(os.fstat(descriptor).st_size))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.delete(name)

    def reserve(self, name: str, size_bytes: int) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except OSError:
            os.unlink(self._folder / name)  # a part of it would only take room
            raise
        finally:
            os.close(descriptor)

    def free_bytes(self) -> int | None:
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
