"""A writer and maintenance at once, as threads over one catalog: no row lost, and hardly a commit repeated."""

import logging
import threading
from pathlib import Path

import pytest

from lakehouse.history import ensure_history
from lakehouse.iceberg import IcebergTable
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact
from lakehouse.state import TableState
from tests.lakehouse.frames import clicks
from tests.lakehouse.shelf import CLICKS, Shelf, table_rows
from tests.lakehouse.world import commit_files

COMMITS, ROWS = 80, 10


def test_the_ingest_and_maintenance_share_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)
    shelf = Shelf(tmp_path)
    own = shelf.open_catalog()
    writer = IcebergTable(own.load_table(CLICKS.table))
    writer.recover()
    finished = threading.Event()
    merged: list[int] = []
    failures: list[BaseException] = []

    def keep() -> None:
        try:
            table = shelf.load()
            ensure_history(table)
            while not finished.is_set():
                table.refresh()
                merged.append(compact(table, quiet=False).files)
        except BaseException as error:  # noqa: BLE001 - the test's own thread must see whatever it was
            failures.append(error)

    keeper = threading.Thread(target=keep)
    keeper.start()
    with caplog.at_level(logging.INFO, "lakehouse.iceberg"):
        for n in range(COMMITS):
            rows = table_rows(CLICKS, clicks(range(n * ROWS, (n + 1) * ROWS)))
            commit_files(writer, writer.write(rows), TableState(floors={"log/0": n}))
    finished.set()
    keeper.join()
    assert failures == []
    assert sum(files > 0 for files in merged) > 1
    assert shelf.seqs() == list(range(COMMITS * ROWS))
    repeats = sum("moved by another writer" in record.getMessage() for record in caplog.records)
    assert repeats <= COMMITS
    assert writer.recover().kept.root.floors == {"log/0": COMMITS - 1}
    own.engine.dispose()
    shelf.close()
