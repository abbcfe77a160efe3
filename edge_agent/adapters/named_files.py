"""Files that a bundle names by their hash."""

import hashlib
from pathlib import Path

from edge_agent.errors import BundleError


def read(folder: Path, name: str, sha256: str, what: str) -> bytes:
    """Return a file's content; `what` says in an error what the file is. Raises BundleError."""
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{what}: expected {folder / name}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise BundleError(f"{what}: {folder / name} has SHA-256 {found}, the bundle names {sha256}: fetch it again")
    return data
