"""The mirror's tables behind the `MirrorStore` port: PostgreSQL through psycopg, rows in and out by the batch."""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from lakehouse.errors import StoreUnavailableError, ValueRefusedError
from lakehouse.mirror import tables
from lakehouse.mirror.config import DatabaseConfig
from lakehouse.mirror.kinds import KINDS, RecordKind
from lakehouse.mirror.model import Key, Record, Scope, SnapshotKey
from lakehouse.mirror.ports import Positions, Transaction
from lakehouse.mirror.projection import line_of, record_of

CONNECT_TIMEOUT_S: Final = 3  # seconds; a server on the same network answers in milliseconds or not at all
# Longest a statement may take, in ms: a sweep over ten million rows takes half of it. After it the batch is tried anew.
STATEMENT_TIMEOUT_MS: Final = 120_000
LOCK_TIMEOUT_MS: Final = 10_000  # ms that another writer's transaction is waited for
# What the server says of a value; the last two: text too long for an index, JSON nested too deeply.
_REFUSALS: Final = (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_log = logging.getLogger(__name__)


class PostgresTransaction:
    """One transaction on an open connection."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def positions(self, topic_id: str) -> Positions:
        """See the port."""
        self._cursor.execute(tables.LOCK)
        return dict(self._cursor.execute(tables.POSITIONS, (topic_id,)).fetchall())

    def move(self, topic_id: str, positions: Positions) -> None:
        """See the port."""
        self._cursor.executemany(tables.MOVE, [(topic_id, partition, at) for partition, at in positions.items()])

    def swept(self) -> Mapping[Scope, int]:
        """See the port."""
        rows = self._cursor.execute(tables.SWEPT).fetchall()
        return {Scope(*row[:3]): row[3] for row in rows}

    def read(self, kind: RecordKind, keys: Collection[Key]) -> dict[Key, Record]:
        """See the port."""
        arrays = [list(part) for part in zip(*keys, strict=True)]
        rows = self._cursor.execute(tables.read(kind).encode(), arrays).fetchall()
        return {row[:4]: record_of(row[4], row[5], row[6]) for row in rows}

    def write(self, kind: RecordKind, records: Mapping[Key, Record]) -> None:
        """See the port."""
        lines = "\n".join([line_of(kind, key, record) for key, record in records.items()])
        try:
            with self._cursor.copy(tables.copy_in(kind).encode()) as copy:
                copy.write(lines + "\n")
            self._cursor.execute(tables.upsert(kind).encode())
        except _REFUSALS as error:
            raise ValueRefusedError(f"table {tables.MIRROR_SCHEMA}.{kind.table}: {_one_line(error)}") from error

    def mark(self, snapshot: SnapshotKey, records: Collection[str]) -> None:
        """See the port."""
        of = _named(snapshot)
        self._cursor.execute(tables.BEGIN_SNAPSHOT, of)
        added = self._cursor.execute(tables.ADD_MARKS, of | {"records": list(records)}).rowcount
        self._cursor.execute(tables.COUNT_MARKS, of | {"count": added})

    def end(self, snapshot: SnapshotKey, records: int) -> None:
        """See the port."""
        self._cursor.execute(tables.BEGIN_SNAPSHOT, _named(snapshot))
        self._cursor.execute(tables.END_SNAPSHOT, _named(snapshot) | {"count": records})

    def sweep_if_complete(self, snapshot: SnapshotKey, kind: RecordKind) -> bool:
        """See the port."""
        of = _named(snapshot)
        found = self._cursor.execute(tables.IS_COMPLETE, of).fetchone()
        if found is None or not found[0]:
            return False
        at = _EPOCH + timedelta(microseconds=snapshot.at_us)
        self._cursor.execute(tables.sweep(kind).encode(), of | {"at": at})
        for statement in (tables.CLOSE_SNAPSHOT, tables.DROP_MARKS, tables.DROP_OLDER):
            self._cursor.execute(statement, of)
        return True


class PostgresMirror:
    """Holds one connection, made when it is needed and given up after an error."""

    def __init__(self, config: DatabaseConfig) -> None:
        self._config = config
        self._connection: psycopg.Connection[Any] | None = None

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """See the port."""
        try:
            connection = self._connected()
            with connection.transaction(), connection.cursor() as cursor:
                yield PostgresTransaction(cursor)
        except psycopg.Error as error:
            self.close()
            raise StoreUnavailableError(
                f"PostgreSQL at {self._config.host}:{self._config.port}, database {self._config.database}: "
                f"{_one_line(error)}: check that it runs and that the mirror's tables and role are there"
            ) from error

    def close(self) -> None:
        """Release the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            made = psycopg.connect(
                host=self._config.host,
                port=self._config.port,
                dbname=self._config.database,
                user=self._config.user,
                password=self._config.password,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="fieldlake-mirror",
                options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c lock_timeout={LOCK_TIMEOUT_MS}",
                autocommit=True,
            )
            self._connection = made
            for kind in KINDS:
                made.execute(tables.incoming(kind).encode())
        return self._connection


def _named(snapshot: SnapshotKey) -> dict[str, Any]:
    return {**snapshot.scope._asdict(), "at_us": snapshot.at_us, "id": snapshot.id}


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
