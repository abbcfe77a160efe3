"""The largest epoch that a device is known to have used, beside its spool's folder: it outlives the spool.

An epoch is the second in which its spool was made. Under a clock that was set back that alone would give a smaller one,
of which the lake takes no more notice.
"""

import logging
import os
from pathlib import Path

from contracts.watermark import AckDocument

_log = logging.getLogger(__name__)


class EpochFile:
    """A number in a file named like the spool's folder; where it cannot be kept, the clock alone decides."""

    def __init__(self, spool_dir: Path) -> None:
        self._path = spool_dir.with_name(f"{spool_dir.name}.epoch")
        self._largest = self._read()

    def next_after(self, now_ms: int) -> int:
        """Return the epoch of a spool that is made now."""
        return max(now_ms // 1_000, self._largest + 1)

    def note(self, epoch: int, ack: AckDocument | None = None) -> None:
        """Remember an epoch of this device, and those that the lake says it has seen."""
        known = max((epoch, *(mark.epoch for mark in ack.watermarks)) if ack is not None else (epoch,))
        if known <= self._largest:
            return
        self._largest = known
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        try:
            temporary.write_text(f"{known}\n")
            os.replace(temporary, self._path)
        except OSError as error:
            _log.warning("%s: %s: a spool made anew takes its epoch from the clock alone", self._path, error.strerror)

    def _read(self) -> int:
        try:
            return int(self._path.read_bytes()[:20])
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            _log.warning("%s: expected a number, found %s: the next spool's epoch is the clock's", self._path, error)
            return 0
