"""File access for tables, tuned for many small files."""

from typing import Any

from pyarrow.fs import FileSystem, S3FileSystem
from pyiceberg.io import (
    S3_ACCESS_KEY_ID,
    S3_ENDPOINT,
    S3_REGION,
    S3_SECRET_ACCESS_KEY,
)
from pyiceberg.io.pyarrow import PyArrowFileIO

CONNECT_TIMEOUT_S = 5.0  # seconds; a store on the same site answers in milliseconds, a dead one must not hold a round
REQUEST_TIMEOUT_S = 20.0  # seconds; the largest compacted file takes a few


class SmallFileIO(PyArrowFileIO):
    """Opens files for writing without a request of their own.

    Arrow then sends a small file as one PUT; without it each becomes a multipart upload of three requests, and a
    commit writes five small files.
    """

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
