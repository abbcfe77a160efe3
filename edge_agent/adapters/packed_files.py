"""Files that are unpacked while they are read: gzip and Zstandard; the latter's library is imported only for one."""

import zlib
from pathlib import Path
from typing import Any, Final, Protocol

PACKED: Final = frozenset({".gz", ".zst"})
# Bytes given to the library at once, which returns all that is in them; text packed to a hundredth is then 400 KB.
PACKED_BLOCK_BYTES: Final = 4_096


class Bytes(Protocol):
    """A file open for reading."""

    def read(self, size: int, /) -> bytes:
        """Return some of the next bytes, none at the end."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


def open_packed(path: Path) -> Bytes:
    """Open a packed file. May raise OSError."""
    if path.suffix == ".zst":
        return ZstdFile(path)
    import gzip

    return gzip.open(path, "rb")


def unreadable() -> tuple[type[Exception], ...]:
    """Return what reading a file may raise, a damaged packed one among them."""
    import zstandard

    return (OSError, EOFError, zlib.error, zstandard.ZstdError)


class ZstdFile:
    """Frames of Zstandard, one after the other. The library's own reader ends a cut-off frame without a word."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - open as long as this
        self._frame: Any = None
        self._packed = b""

    def read(self, _size: int, /) -> bytes:
        """Return what the next packed bytes hold, none at the end. Raises EOFError where a frame is cut off."""
        import zstandard

        while True:
            if not self._packed:
                self._packed = self._file.read(PACKED_BLOCK_BYTES)
            if not self._packed and self._frame is not None:
                raise EOFError("it ends within a frame")
            if not self._packed:
                return b""
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            data: bytes = self._frame.decompress(self._packed)
            self._packed = b""
            if self._frame.eof:
                self._packed, self._frame = self._frame.unused_data, None
            if data:
                return data

    def close(self) -> None:
        """Close it."""
        self._file.close()
