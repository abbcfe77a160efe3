"""Room on the disk that is kept for what must still be written when there is none left."""

import errno
from typing import Final

from edge_agent.ports import Disk

RESERVE_FILE: Final = "reserve"


class Reserve:
    """A file that only takes room. Once it was given up, `is_spent` until there is room for it again."""

    def __init__(self, disk: Disk) -> None:
        self.is_spent = False
        self._disk = disk
        self._is_kept = False

    def keep(self, size_bytes: int) -> None:
        """Make the file if it is not there; without room, or on a disk that knows no such thing, there is none."""
        if self._is_kept:
            return
        try:
            self._disk.reserve(RESERVE_FILE, size_bytes)
        except OSError:
            return  # The caller asks again and again.
        self._is_kept, self.is_spent = True, False

    def give_up(self, error: OSError) -> bool:
        """Make room if an error means a full disk and the file is there; say whether there is some now."""
        if error.errno != errno.ENOSPC or not self._is_kept:
            return False
        try:
            self._disk.delete(RESERVE_FILE)
        except OSError:
            return False  # A disk that is not only full; the reserve stays.
        self._is_kept, self.is_spent = False, True
        return True
