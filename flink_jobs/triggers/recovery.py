"""Where a job that is submitted anew goes on: the newest complete checkpoint that an earlier one left behind.

A job manager that dies takes the job with it. Its checkpoints stay, as `<folder>/<job id>/chk-<n>/_metadata`, and the
metadata file is written last.
"""

from pathlib import Path
from typing import Final
from urllib.parse import urlparse

METADATA: Final = "_metadata"


def newest_checkpoint(checkpoint_dir: str) -> Path | None:
    """Return the folder of the newest complete checkpoint on a local path, None when there is none.

    Another kind of address is not looked into: on a cluster with its own recovery the cluster knows its checkpoints.
    """
    address = urlparse(checkpoint_dir)
    if not checkpoint_dir or address.scheme not in ("", "file"):
        return None
    complete = [file for file in Path(address.path).glob(f"*/chk-*/{METADATA}") if file.stat().st_size]
    newest = max(complete, key=lambda file: file.stat().st_mtime_ns, default=None)
    return None if newest is None else newest.parent
