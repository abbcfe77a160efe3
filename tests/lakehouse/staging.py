"""Real tables on disk, and quality processes over them."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.topics import CONTRACTS as CONTRACTS_TOPIC
from lakehouse.catalog import open_catalog
from lakehouse.data_files import write_rows
from lakehouse.quality.config import QualityConfig
from lakehouse.quality.watcher import Asking, Judging, Watcher
from lakehouse.status import QualityStatus
from tests.lakehouse.frames import CONTRACTS, frame
from tests.lakehouse.memory import MemoryLog
from tests.lakehouse.naive import NaiveJudge
from tests.lakehouse.world import USUAL, World, catalogs

TELEMETRY = CONTRACTS["telemetry"]
TABLE = "lake_a.field.telemetry"


class Stage:
    """A world, and quality processes over it."""

    def __init__(self, folder: Path, judge: Judging | None = None) -> None:
        self.folder = folder
        self.world = World(folder, (*USUAL, "data_quality"))
        self.ingest = self.world.start()
        self.catalogs = [open_catalog(config) for config in catalogs(folder)]
        self.sent: list[bytes] = []
        self.engine: Asking | None = None
        self.judge = judge if judge is not None else NaiveJudge()
        (folder / "expectations").mkdir()
        self.watcher = self.restart()

    def restart(self) -> Watcher:
        config = QualityConfig(
            kafka_bootstrap="", catalogs=catalogs(self.folder), expectations_dir=str(self.folder / "expectations"),
            report_dir=str(self.folder / "out"), sample_rows_max=500,
        )  # fmt: skip
        self.status = QualityStatus(pid=0)
        self.world.clock.advance(1)
        contracts = MemoryLog(self.world.broker, self.world.clock).follow(CONTRACTS_TOPIC)
        self.watcher = Watcher(
            config, self.catalogs, contracts, self.send, self.judge, self.engine,
            self.world.clock, self.status, self.folder / "memory.json",
        )  # fmt: skip
        return self.watcher

    def send(self, batches: Sequence[tuple[str, bytes]]) -> None:
        for origin, batch in batches:
            self.world.broker.batch(origin, batch)

    def commit(self, rows: list[dict[str, Any]], origin: str = "device-1") -> None:
        self.world.broker.batch(origin, frame(TELEMETRY, rows))
        self.world.drain(self.ingest)

    def plant(self, seqs: range, **fault: Any) -> None:
        """Commit rows past every check, as a broken writer would."""
        table = self.catalogs[0].load_table(TELEMETRY.table)
        rows = table.scan(limit=len(seqs)).to_arrow().slice(0, len(seqs))
        for name, value in {"seq": list(seqs), **{k: [v] * len(seqs) for k, v in fault.items()}}.items():
            at = rows.column_names.index(name)
            kind = rows.schema.field(at)
            rows = rows.set_column(at, kind, [pa.array(value, kind.type)])
        with table.transaction() as transaction, transaction.update_snapshot().fast_append() as producer:
            for file in write_rows(table, rows):
                producer.append_data_file(file)

    def step(self) -> None:
        self.watcher.step(threading.Event())

    def results(self) -> list[dict[str, Any]]:
        self.world.drain(self.ingest)
        return self.world.records("data_quality")

    def page(self, name: str = TABLE) -> str:
        return (self.folder / "out" / f"{name}.html").read_text(encoding="utf-8")

    def close(self) -> None:
        self.world.close()
        for catalog in self.catalogs:
            catalog.engine.dispose()
