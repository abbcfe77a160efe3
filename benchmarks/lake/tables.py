"""Tables as the catalog has them: what they are made of, while others write."""

import time
from collections.abc import Mapping
from typing import Final

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.lake.ground import Ground
from contracts.contract import Contract
from contracts.errors import OperatorMustActError
from lakehouse.catalog import LakeCatalog, open_catalog

TABLE_WITHIN_S: Final = 120.0
POLL_S: Final = 0.1
# What a look at a table may meet while everything around it is busy or about to start.
PASSING: Final = (NoSuchTableError, SQLAlchemyError, OSError)


def catalog(place: Ground, name: str) -> LakeCatalog:
    """Return the catalog of this name."""
    return open_catalog(next(config for config in place.lake_config.catalogs if config.name == name))


class TableWatch:
    """One contract's table; `shape` is for a `Sampler`."""

    def __init__(self, place: Ground, contract: Contract) -> None:
        self._catalog = catalog(place, contract.catalog)
        self._name = contract.table
        self._table: Table | None = None

    def table(self) -> Table:
        """Return the table as it is now. Raises NoSuchTableError."""
        if self._table is None:
            self._table = self._catalog.load_table(self._name)
        return self._table.refresh()

    def await_table(self) -> Table:
        """Return the table once ingest has made it: until then batches of its contract are nobody's."""
        deadline_s = time.time() + TABLE_WITHIN_S
        while True:
            try:
                return self.table()
            except PASSING as error:
                if time.time() > deadline_s:
                    raise OperatorMustActError(
                        f"table {self._name}: expected ingest to make it within {TABLE_WITHIN_S:.0f} s: {error}"
                    ) from error
                time.sleep(POLL_S)

    def shape(self) -> Mapping[str, float]:
        """Return snapshots and, as far as the newest one says it, data files, bytes of them, and rows."""
        table = self.table()
        snapshot = table.current_snapshot()
        found = {"snapshots": float(len(table.metadata.snapshots))}
        if snapshot is None or snapshot.summary is None:
            return found
        for key, name in (("total-data-files", "files"), ("total-files-size", "bytes"), ("total-records", "rows")):
            if (value := snapshot.summary.get(key)) is not None:
                found[name] = float(value)
        return found

    def close(self) -> None:
        """Release connections."""
        self._catalog.engine.dispose()
