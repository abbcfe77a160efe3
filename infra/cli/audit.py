"""The trail of what an operator did to data with a command: one JSON line each, appended and synced before going on."""

import datetime as dt
import getpass
import os
from pathlib import Path
from typing import Final

import msgspec

TRAIL_FILE: Final = "audit.jsonl"


class Trail:
    """Appends to the trail of one copy of the stack."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / TRAIL_FILE

    def write(self, what: str, **details: object) -> None:
        """Append a line that says who did what, when. Raises OSError; what is not on the trail must not happen."""
        line = {"at": dt.datetime.now(dt.UTC).isoformat(), "who": getpass.getuser(), "what": what, **details}
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, msgspec.json.encode(line) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
