"""Start the mirror process: `python -m lakehouse.mirror --config FILE`.

FILE is a `MirrorConfig` in JSON. FILE.ready (our pid) is there while log and database are; FILE.status.json is replaced
once a second (`lakehouse.mirror.status.MirrorStatus`).
"""

import os
import sys
import threading
from pathlib import Path

from lakehouse.mirror.config import MirrorConfig
from lakehouse.mirror.follower import Mirror
from lakehouse.mirror.log import KafkaChanges
from lakehouse.mirror.postgres import PostgresMirror
from lakehouse.mirror.status import MirrorStatus
from lakehouse.process import WallClock, serve, shown


def work(config: MirrorConfig, path: Path, stop: threading.Event, ready: threading.Event) -> None:
    """Follow the log until stopped."""
    clock = WallClock()
    status = MirrorStatus(pid=os.getpid())
    with shown(path, status, ready):
        log, tables = KafkaChanges(config.kafka_bootstrap), PostgresMirror(config.database)
        mirror = Mirror(log, tables, clock, config.batch_changes_max, status)
        try:
            mirror.run(stop, ready)
        finally:
            mirror.close()


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    purpose = "Keep the current state of CRM records in PostgreSQL from the changes on the log."
    return serve("lakehouse.mirror", purpose, work, arguments, MirrorConfig)


if __name__ == "__main__":
    sys.exit(main())
