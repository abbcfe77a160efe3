"""What was erased stays erased when a table is made anew: rows of subjects whom the table of removals knows.

It knows them by salted hashes, so each name of the rows is hashed with the salt of each erasure. Rows that a device
sealed after the erasure are a new beginning and stay. Texts in which a name is only a part cannot be found like this.
"""

from collections import defaultdict
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from contracts.contract import Contract
from lakehouse.maintenance.removals import ERASURE, TABLE, is_of
from lakehouse.maintenance.subjects import KIND_COLUMN, ORIGIN
from lakehouse.tables import PERSONAL

_SEALED_AT: Final = "sealed_at"


class Erasures:
    """Of one table: by hash, when a subject was erased last, in microseconds of Unix time."""

    def __init__(self, catalog: SqlCatalog, contract: Contract) -> None:
        """Read them. Errors of store and catalog pass through."""
        self._contract = contract
        self._at_us: dict[str, int] = _erased(catalog, f"{catalog.name}.{contract.table}")
        own = contract.subject_field or (ORIGIN if contract.subject_kind else None)
        personal = [field.name for field in contract.fields if field.classification == PERSONAL]
        self._columns = [name for name in dict.fromkeys((own, *personal)) if name is not None]
        self.rows = 0  # that were left out

    def without(self, rows: pa.Table) -> pa.Table:
        """Return rows without those of erased subjects."""
        if not self._at_us or not rows.num_rows:
            return rows
        gone = pa.chunked_array([pa.repeat(pa.scalar(False), rows.num_rows)])
        sealed_us = pc.cast(rows.column(_SEALED_AT), pa.int64())
        for name in (name for name in self._columns if name in rows.column_names):
            for until_us, names in self._found(rows, name).items():
                of_them = pc.is_in(rows.column(name), value_set=pa.array(sorted(names), rows.schema.field(name).type))
                gone = pc.or_(gone, pc.and_(of_them, pc.less_equal(sealed_us, until_us)))
        self.rows += pc.sum(gone).as_py() or 0
        return rows.filter(pc.invert(gone))

    def _found(self, rows: pa.Table, name: str) -> dict[int, set[str]]:
        """Return the erased names of a column by the time of their erasure."""
        found: dict[int, set[str]] = defaultdict(set)
        if not pa.types.is_string(rows.schema.field(name).type):
            return found
        for value in pc.unique(rows.column(name)).to_pylist():
            for hashed, at_us in self._at_us.items():
                if value is not None and any(is_of(hashed, kind, value) for kind in self._kinds(rows)):
                    found[at_us].add(value)
        return found

    def _kinds(self, rows: pa.Table) -> list[str]:
        if KIND_COLUMN in rows.column_names:
            return [kind for kind in pc.unique(rows.column(KIND_COLUMN)).to_pylist() if kind is not None]
        return [] if self._contract.subject_kind is None else [self._contract.subject_kind]


def _erased(catalog: SqlCatalog, table: str) -> dict[str, int]:
    try:
        removals = catalog.load_table(TABLE)
    except NoSuchTableError:
        return {}
    noted = removals.scan(selected_fields=("reason", "table", "subject", "removed_at")).to_arrow()
    noted = noted.filter(pc.and_(pc.equal(noted.column("reason"), ERASURE), pc.equal(noted.column("table"), table)))
    at_us = pc.cast(noted.column("removed_at"), pa.int64()).to_pylist()
    found: dict[str, int] = {}
    for hashed, one_us in zip(noted.column("subject").to_pylist(), at_us, strict=True):
        found[hashed] = max(one_us, found.get(hashed, 0))
    return found
