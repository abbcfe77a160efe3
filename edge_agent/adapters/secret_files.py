"""Files that hold one secret: a bearer token, a password."""

from pathlib import Path
from typing import Final

from edge_agent.errors import SourceError

TOKEN_BYTES_MIN: Final = 16  # bytes; a shorter one can be guessed by another process on the device
SECRET_BYTES_MAX: Final = 512  # bytes
PRINTABLE: Final = range(0x21, 0x7F)


def read_secret(path: Path, bytes_min: int = TOKEN_BYTES_MIN) -> bytes:
    """Return the file's one line: printable ASCII without spaces, closed to other users. Raises SourceError."""
    try:
        with open(path, "rb") as file:
            secret = file.read(SECRET_BYTES_MAX + 2).strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(f"secret file {path}: expected a readable file: {error.strerror}") from error
    if mode & 0o007:
        raise SourceError(
            f"secret file {path}: expected no access for others, found mode {mode & 0o777:03o}: run `chmod o= {path}`"
        )
    if not bytes_min <= len(secret) <= SECRET_BYTES_MAX or not all(byte in PRINTABLE for byte in secret):
        raise SourceError(
            f"secret file {path}: expected {bytes_min} to {SECRET_BYTES_MAX} printable ASCII characters without "
            f"spaces, found {len(secret)} bytes: write it anew, for example with `openssl rand -hex 32`"
        )
    return secret
