"""File access for tables, tuned for many small files."""

import io
from typing import TYPE_CHECKING, Any, Final

from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.io import (
    S3_ACCESS_KEY_ID,
    S3_ENDPOINT,
    S3_REGION,
    S3_SECRET_ACCESS_KEY,
    OutputStream,
)
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CONNECT_TIMEOUT_S: Final = 5.0  # seconds; a store on the same site answers in milliseconds, a dead one must not hold
REQUEST_TIMEOUT_S: Final = 20.0  # seconds; the largest compacted file takes a few


class CountingStream(io.RawIOBase):
    """An output stream that knows how much went through it."""

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self.size_bytes = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of it; return its length."""
        written = self._stream.write(bytes(data))
        self.size_bytes += written
        return written

    def tell(self) -> int:
        """Return the position, which is the length so far."""
        return self.size_bytes

    def close(self) -> None:
        """Send what is left; the file is there once this returns."""
        if not self.closed:
            try:
                self._stream.close()
            finally:
                super().close()


class SmallFile(PyArrowFile):
    """A file that does not ask the store for the length of what it has just written."""

    _written: CountingStream | None = None

    def create(self, overwrite: bool = False) -> OutputStream:
        """Open it for writing."""
        self._written = CountingStream(super().create(overwrite))
        return self._written

    def __len__(self) -> int:
        """Return its length in bytes."""
        if self._written is not None and self._written.closed:
            return self._written.size_bytes
        return super().__len__()


class SmallFileIO(PyArrowFileIO):
    """Opens files for writing without a request of their own.

    Arrow then sends a small file as one PUT; without it each becomes a multipart upload of three requests, and a
    commit writes five small files.
    """

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to be written."""
        made = super().new_output(location)
        return SmallFile(location, made._path, made._filesystem, made._buffer_size)

    def _initialize_s3_fs(self, netloc: str | None) -> FileSystem:
        options: dict[str, Any] = {
            "endpoint_override": self.properties.get(S3_ENDPOINT),
            "access_key": self.properties.get(S3_ACCESS_KEY_ID),
            "secret_key": self.properties.get(S3_SECRET_ACCESS_KEY),
            "region": self.properties.get(S3_REGION),
        }
        return S3FileSystem(
            allow_delayed_open=True, connect_timeout=CONNECT_TIMEOUT_S, request_timeout=REQUEST_TIMEOUT_S, **options
        )
