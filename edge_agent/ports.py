"""Seams between the agent's cores and the world: what a core may ask for."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Scorer(Protocol):
    """A filter model that is ready to run."""

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return one score per row for exactly `chunk_rows` rows, shape (chunk_rows, inputs) -> (chunk_rows,)."""
        ...


class Disk(Protocol):
    """The spool's folder. Names are plain file names. Every method may raise OSError."""

    def names(self) -> list[str]:
        """Return the names of all files."""
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return up to `length` bytes from `offset`, all of them without a length."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the end of a file, which is created if need be. May be undone by a power cut until `sync`."""
        ...

    def sync(self, name: str) -> None:
        """Return once everything appended to the file, and its name, would survive a power cut."""
        ...

    def truncate(self, name: str, length: int) -> None:
        """Cut a file to a length."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Put `data` in place of the file: after a crash the old or the new content is there, whole."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is fine."""
        ...
