"""A real Iceberg table in a folder: SQLite catalog, the lakehouse's own schema and state file, written by PyIceberg."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import yaml
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from contracts import odcs
from federation.config import CatalogConfig
from federation.history.iceberg import NAMESPACE, TABLE
from lakehouse import state
from lakehouse.schema import table_schema
from lakehouse.streams import StreamKey
from lakehouse.tables import table_properties

DOCUMENT = Path(__file__).resolve().parents[2] / "contracts" / "documents" / "service_history.odcs.yaml"
CONTRACT = odcs.contract_of(yaml.safe_load(DOCUMENT.read_text(encoding="utf-8")))


class FolderLake:
    """One catalog in a folder, with the service history table."""

    def __init__(self, folder: Path) -> None:
        self.config = CatalogConfig("lake_a", f"sqlite:///{folder}/catalog.db", f"file://{folder}/wh", "", "", "")
        self.catalog = SqlCatalog("lake_a", uri=self.config.uri, warehouse=self.config.warehouse)
        self._streams: dict[StreamKey, tuple[tuple[int, int], ...]] = {}

    def create(self) -> Table:
        """Create the empty table."""
        self.catalog.create_namespace(NAMESPACE)
        return self.catalog.create_table(
            f"{NAMESPACE}.{TABLE}", schema=table_schema(CONTRACT), properties=table_properties(CONTRACT)
        )

    def append(self, rows: Sequence[dict[str, Any]], with_state: bool = True) -> int:
        """Commit rows as the ingest does, and return the snapshot's id."""
        table = self.catalog.load_table(f"{NAMESPACE}.{TABLE}")
        complete = [row_with_defaults(row) for row in rows]
        properties: dict[str, str] = {}
        if with_state:
            for row in complete:
                key = StreamKey(TABLE, row["origin"], row["epoch"])
                first = row["seq"]
                self._streams[key] = ((0, first + 1),)
            # No ".zst" in the name: Arrow takes it as an order to compress what is compressed already.
            location = f"{table.location()}/metadata/fieldlake-state-{uuid4()}.bin"
            with table.io.new_output(location).create() as stream:
                stream.write(state.encode(state.TableState(changed=tuple(self._streams.items()))))
            properties = {state.STATE_PROPERTY: location}
        table.append(pa.Table.from_pylist(complete, schema=table_schema(CONTRACT)), snapshot_properties=properties)
        snapshot = self.catalog.load_table(f"{NAMESPACE}.{TABLE}").current_snapshot()
        assert snapshot is not None
        return snapshot.snapshot_id

    def close(self) -> None:
        """Let go of the catalog's database."""
        self.catalog.engine.dispose()


def row_with_defaults(row: dict[str, Any]) -> dict[str, Any]:
    """Return a complete row; what it says nothing about is the same in all."""
    return {
        "origin": "tablet-01",
        "epoch": 1,
        "contract_version": CONTRACT.version,
        "sealed_at": datetime(2026, 11, 1, tzinfo=UTC),
        "kind": "note",
        "work_order_id": "W-00001",
        "status": None,
        "part_no": None,
        "note": "已更换密封圈，试运行正常",
        "technician": "t-1",
        "supersedes": None,
        **row,
    }
