"""Rows that a table may not keep any longer: older than their contract's retention, by the time of the event.

The limit moves once a day: rows of a bucket's file are of all times, so the oldest files are written again on each day
that something in them ends. A file whose newest row has ended goes without being read.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import PrimitiveType

from lakehouse.maintenance.bounds import is_below, may_be_below
from lakehouse.tables import EVENT_TIME_PROPERTY, RETENTION_PROPERTY

SEALED_AT: Final = "sealed_at"  # stands for the time of an event that has none
DAY_MS: Final = 86_400_000  # ms
US_PER_MS: Final = 1_000


class Ended(Struct, frozen=True):
    """The rule: an event before `limit_us`, microseconds since 1970 UTC."""

    name: str
    field_id: int
    kind: PrimitiveType
    limit_us: int

    @property
    def columns(self) -> tuple[str, ...]:
        """What decides."""
        return tuple(dict.fromkeys((self.name, SEALED_AT)))

    def may_hold(self, file: DataFile) -> bool:
        """By the oldest event, and for a file with events without a time."""
        return may_be_below(file, self.field_id, self.kind, self.limit_us)

    def holds_only(self, file: DataFile) -> bool:
        """By the newest event."""
        return is_below(file, self.field_id, self.kind, self.limit_us)

    def matches(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return which rows have ended."""
        times = pc.coalesce(rows.column(self.name), rows.column(SEALED_AT)).cast(pa.int64())
        return pc.fill_null(pc.less(times, self.limit_us), False)


def limit_us(now_ms: int, retention_days: int) -> int:
    """Return the time before which rows have ended: `retention_days` whole days before the day of `now_ms` began."""
    return (now_ms // DAY_MS - retention_days) * DAY_MS * US_PER_MS


def rule_of(table: Table, now_ms: int) -> Ended | None:
    """Return what has ended in a table; None for one that keeps its rows for ever."""
    days = table.properties.get(RETENTION_PROPERTY)
    name = table.properties.get(EVENT_TIME_PROPERTY) or SEALED_AT
    field = next((field for field in table.schema().fields if field.name == name), None)
    if not days or field is None or not isinstance(field.field_type, PrimitiveType):
        return None
    return Ended(name, field.field_id, field.field_type, limit_us(now_ms, int(days)))
