"""Start an ingest worker: `python -m lakehouse --config FILE`.

FILE is a `LakeConfig` in JSON; workers that share the work differ in its `worker`. FILE.ready (our pid) is there while
the worker has its share of the log; FILE.status.json is replaced once a second (`lakehouse.status.IngestStatus`).
"""

import os
import sys
import threading
from pathlib import Path

from lakehouse.config import LakeConfig
from lakehouse.iceberg import IcebergLake
from lakehouse.kafka.log import KafkaLog
from lakehouse.process import WallClock, serve, shown
from lakehouse.status import IngestStatus
from lakehouse.worker import Worker


def work(config: LakeConfig, path: Path, stop: threading.Event, ready: threading.Event) -> None:
    """Follow the log until stopped."""
    clock = WallClock()
    status = IngestStatus(pid=os.getpid())
    with shown(path, status, ready):
        log, lake = KafkaLog(config.kafka_bootstrap, config.worker), IcebergLake(config.catalogs)
        worker = Worker(config.worker, log, lake, clock, config.commit_interval_ms, status)
        try:
            worker.run(stop, ready)
        finally:
            worker.close()


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    return serve("lakehouse", "Write micro-batches from the log into Iceberg tables.", work, arguments, LakeConfig)


if __name__ == "__main__":
    sys.exit(main())
