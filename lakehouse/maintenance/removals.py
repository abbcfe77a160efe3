"""The table of removals: which rows were taken out of the lake, when, by whom and why; never whose they were.

A removal by retention is one row. An erasure is two: one before anything is changed and one with what was done, so an
erasure that was interrupted shows. A subject appears as a salted hash: with the subject in hand one can find the rows
that speak of it, and without it a row says nothing.
"""

import hashlib
import secrets
import time
from typing import Final

import pyarrow as pa
from msgspec import Struct
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import BooleanType, LongType, NestedField, StringType, TimestamptzType

from lakehouse.data_files import write_rows
from lakehouse.maintenance.change import Change
from lakehouse.maintenance.listing import Manifests
from lakehouse.maintenance.replacing import replace_files
from lakehouse.tables import CONTRACT_PROPERTY, SORT_PROPERTY

NAMESPACE: Final = "ops"
TABLE: Final = f"{NAMESPACE}.removals"
RETENTION: Final = "retention"
ERASURE: Final = "erasure"
_SALT_BYTES: Final = 16

_SCHEMA: Final = Schema(
    NestedField(1, "removed_at", TimestamptzType(), required=True, doc="When, by the clock of who did it."),
    NestedField(2, "reason", StringType(), required=True, doc="retention or erasure."),
    NestedField(3, "actor", StringType(), required=True, doc="Who asked for it."),
    NestedField(4, "table", StringType(), required=True, doc="Table that rows were removed from, with its catalog."),
    NestedField(5, "finished", BooleanType(), required=True, doc="False in the row that says it begins."),
    NestedField(6, "subject", StringType(), doc="Salt and SHA-256 of salt, kind and id, in hexadecimal digits."),
    NestedField(7, "rows", LongType(), required=True, doc="Rows removed."),
    NestedField(8, "files", LongType(), required=True, doc="Data files replaced or removed."),
    NestedField(9, "rewritten", LongType(), required=True, doc="Data files written again without the rows."),
    NestedField(10, "snapshots", LongType(), required=True, doc="Snapshots dropped because they still had the rows."),
    NestedField(11, "verified", BooleanType(), required=True, doc="Whether nothing was found afterwards."),
)


class Removal(Struct, frozen=True):
    """One row of the table."""

    at_ms: int
    reason: str
    actor: str
    table: str
    finished: bool = True
    subject: str | None = None
    rows: int = 0
    files: int = 0
    rewritten: int = 0
    snapshots: int = 0
    verified: bool = True


def subject_hash(kind: str, subject_id: str, salt: bytes | None = None) -> str:
    """Return what the table says of a subject; another word each time unless the salt is given."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    named = len(kind.encode()).to_bytes(4, "big") + kind.encode() + subject_id.encode()
    return f"{salt.hex()}:{hashlib.sha256(salt + named).hexdigest()}"


def is_of(hashed: str, kind: str, subject_id: str) -> bool:
    """Say whether a hash is of a subject."""
    return subject_hash(kind, subject_id, bytes.fromhex(hashed.partition(":")[0])) == hashed


def note_removal(catalog: SqlCatalog, removal: Removal) -> None:
    """Add a row; the table is made when it is missing. Raises what `replace_files` raises."""
    table = removals_table(catalog)
    row = {
        "removed_at": removal.at_ms * 1_000,
        "reason": removal.reason,
        "actor": removal.actor,
        "table": removal.table,
        "finished": removal.finished,
        "subject": removal.subject,
        "rows": removal.rows,
        "files": removal.files,
        "rewritten": removal.rewritten,
        "snapshots": removal.snapshots,
        "verified": removal.verified,
    }
    rows = pa.Table.from_pylist([row], schema=table.schema().as_arrow())
    replace_files(table, Change({}, write_rows(table, rows), rows_changed=True), Manifests(table.io), time.monotonic())


def removals_table(catalog: SqlCatalog) -> Table:
    """Return the catalog's table of removals; make it when it is missing."""
    catalog.create_namespace_if_not_exists(NAMESPACE)
    # It is one of ours, so that maintenance merges its files too; it keeps its rows for ever.
    properties = {"format-version": "2", CONTRACT_PROPERTY: "removals", SORT_PROPERTY: "removed_at"}
    return catalog.create_table_if_not_exists(TABLE, _SCHEMA, properties=properties)
