"""Start the maintenance process: `python -m lakehouse.maintenance --config FILE`.

FILE is a `LakeConfig` in JSON. FILE.ready (our pid) is there after the first pass; FILE.status.json is replaced once a
second (`lakehouse.status.MaintenanceStatus`).
"""

import os
import sys
import threading
from pathlib import Path

from lakehouse.catalog import open_catalog
from lakehouse.config import LakeConfig
from lakehouse.maintenance.keeper import Keeper
from lakehouse.process import ReadyFile, WallClock, beside, serve
from lakehouse.status import MaintenanceStatus, StatusFile


def work(config: LakeConfig, path: Path, stop: threading.Event, ready: threading.Event) -> None:
    """Pass over the tables until stopped."""
    clock = WallClock()
    status = MaintenanceStatus(pid=os.getpid())
    status_file = StatusFile(beside(path, "status.json"), status, clock.now_ms)
    ready_file = ReadyFile(beside(path, "ready"), ready)
    catalogs = tuple(open_catalog(catalog) for catalog in config.catalogs)
    status_file.start()
    ready_file.start()
    try:
        Keeper(catalogs, clock, status).run(config.maintenance_interval_ms, stop, ready)
    finally:
        ready_file.stop()
        status_file.stop()
        for catalog in catalogs:
            catalog.engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    purpose = "Merge small files of the lake's tables and remove unneeded ones."
    return serve("lakehouse.maintenance", purpose, work, arguments, LakeConfig)


if __name__ == "__main__":
    sys.exit(main())
