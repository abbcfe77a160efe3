"""Start the quality process: `python -m lakehouse.quality --config FILE`.

FILE is a `QualityConfig` in JSON. FILE.ready (our pid) is there after the first pass; FILE.status.json is replaced once
a second (`lakehouse.status.QualityStatus`); FILE.memory.json is what the next start goes on from.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Final

import pyarrow as pa

from contracts.topics import CONTRACTS
from lakehouse.catalog import open_catalog
from lakehouse.kafka.log import KafkaLog
from lakehouse.process import WallClock, beside, serve, shown
from lakehouse.quality.config import QualityConfig
from lakehouse.quality.engine import Engine
from lakehouse.quality.watcher import Watcher
from lakehouse.sending import Sender
from lakehouse.status import QualityStatus

NICENESS: Final = 19  # the least: whoever commits or queries goes first
CPU_THREADS: Final = 1
IO_THREADS: Final = 2


def work(config: QualityConfig, path: Path, stop: threading.Event, ready: threading.Event) -> None:
    """Look at the tables until stopped."""
    # From an environment of its own, which an answer about the configuration does not need.
    from lakehouse.quality.judging import Judge

    os.nice(NICENESS)
    pa.set_cpu_count(CPU_THREADS)
    pa.set_io_thread_count(IO_THREADS)
    clock = WallClock()
    status = QualityStatus(pid=os.getpid())
    with shown(path, status, ready):
        catalogs = tuple(open_catalog(catalog) for catalog in config.catalogs)
        contracts = KafkaLog(config.kafka_bootstrap).follow(CONTRACTS)
        try:
            engine = None if config.engine is None else Engine(config.engine)
            send = Sender(config.kafka_bootstrap).send
            memory_file = beside(path, "memory.json")
            Watcher(config, catalogs, contracts, send, Judge(), engine, clock, status, memory_file).run(stop, ready)
        finally:
            contracts.close()
            for catalog in catalogs:
                catalog.engine.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run until stopped; return the exit code."""
    return serve(
        "lakehouse.quality", "Ask the lake's tables what is expected of their rows.", work, arguments, QualityConfig
    )


if __name__ == "__main__":
    sys.exit(main())
