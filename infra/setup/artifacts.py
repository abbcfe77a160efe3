"""The committed list of Java artifacts, and the check that a file is the one the list means."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.setup.errors import DigestMismatchError, DownloadError

LIST_FILE: Final = Path(__file__).with_name("artifacts.json")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file by its coordinates; `bytes` and `sha256` are what it must have."""

    group: str
    artifact: str
    version: str
    classifier: str
    packaging: str
    bytes: int
    sha256: str

    @property
    def filename(self) -> str:
        """Return the name under which the file is kept."""
        tail = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{tail}.{self.packaging}"

    def __str__(self) -> str:
        return ":".join(part for part in (self.group, self.artifact, self.version, self.classifier) if part)


def load(list_file: Path = LIST_FILE) -> dict[str, tuple[Artifact, ...]]:
    """Return the artifacts by the group that set-up fetches together."""
    groups = json.loads(list_file.read_text())
    return {name: tuple(Artifact(**entry) for entry in entries) for name, entries in groups.items()}


def is_complete(artifact: Artifact, folder: Path) -> bool:
    """Tell whether `folder` holds the artifact at its full size. Files get there verified, so size is enough."""
    file = folder / artifact.filename
    return file.is_file() and file.stat().st_size == artifact.bytes


def verify(artifact: Artifact, file: Path) -> None:
    """Check a downloaded file.

    Raises:
        DownloadError: the size is wrong, so the transfer was cut short; worth another try.
        DigestMismatchError: the size is right and the content is not; repeating is pointless.
    """
    size = file.stat().st_size
    if size != artifact.bytes:
        raise DownloadError(f"{artifact.filename}: expected {artifact.bytes} bytes, found {size}")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != artifact.sha256:
        raise DigestMismatchError(
            f"{artifact.filename} ({artifact}): expected sha256 {artifact.sha256}, found {found}; it was thrown away. "
            "Run again; if the same digest comes back, the repository or a proxy on the way serves another file than "
            "the one that was reviewed: find out why before changing infra/setup/artifacts.json"
        )
