"""Start the maintenance process: `python -m lakehouse.maintenance --config FILE`.

FILE is a `LakeConfig` in JSON. FILE.ready (our pid) is there after the first pass; FILE.status.json is replaced once a
second (`lakehouse.status.MaintenanceStatus`).
"""

import os
import sys
import threading
from pathlib import Path
from typing import Final

from lakehouse.catalog import open_catalog
from lakehouse.config import LakeConfig
from lakehouse.maintenance.keeper import Keeper
from lakehouse.process import WallClock, serve, shown
from lakehouse.status import MaintenanceStatus

NICENESS: Final = 10  # whoever commits or queries goes first; a merge can wait, but not for ever


def work(config: LakeConfig, path: Path, stop: threading.Event, ready: threading.Event) -> None:
    """Pass over the tables until stopped."""
    os.nice(NICENESS)
    clock = WallClock()
    status = MaintenanceStatus(pid=os.getpid())
    with shown(path, status, ready):
        catalogs = tuple(open_catalog(catalog) for catalog in config.catalogs)
        try:
            Keeper(catalogs, clock, status).run(config.maintenance_interval_ms, stop, ready)
        finally:
            for catalog in catalogs:
                catalog.engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    purpose = "Merge small files of the lake's tables and remove unneeded ones."
    return serve("lakehouse.maintenance", purpose, work, arguments, LakeConfig)


if __name__ == "__main__":
    sys.exit(main())
