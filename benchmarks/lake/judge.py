"""What is in a table, counted by DuckDB: an outside reader, so that our own cannot hide its own mistakes."""

from collections.abc import Mapping

import duckdb
from msgspec import Struct

from contracts.contract import Contract
from contracts.ranges import RangeSet
from infra.demo.tables import LakeReader
from infra.launcher.endpoints import Endpoints

Sent = Mapping[tuple[str, int], RangeSet]  # (origin, epoch) -> sequence numbers


class Account(Struct, frozen=True):
    """Rows against what was sent: `strange` are identities that nobody has sent."""

    sent: int
    rows: int
    lost: int
    doubled: int
    strange: int


def account(endpoints: Endpoints, contract: Contract, sent: Sent) -> Account:
    """Compare identities one by one, every sequence number being a row."""
    with LakeReader(endpoints) as reader:
        location = reader.metadata_location(contract.catalog, contract.table)
        return compare(reader.duck, f"iceberg_scan('{location}')", sent)


def compare(duck: duckdb.DuckDBPyConnection, table: str, sent: Sent) -> Account:
    """Compare a table's identities with what was sent; makes three temporary tables in the connection."""
    duck.execute("CREATE OR REPLACE TEMP TABLE sent (origin VARCHAR, epoch BIGINT, low BIGINT, past BIGINT)")
    ranges = [(origin, epoch, low, end) for (origin, epoch), held in sent.items() for low, end in held]
    if ranges:
        duck.executemany("INSERT INTO sent VALUES (?, ?, ?, ?)", ranges)
    duck.execute(
        "CREATE OR REPLACE TEMP TABLE present AS "
        f"SELECT origin, epoch, seq, count(*) AS copies FROM {table} GROUP BY ALL"
    )
    duck.execute(
        "CREATE OR REPLACE TEMP TABLE wanted AS SELECT origin, epoch, unnest(range(low, past)) AS seq FROM sent"
    )
    (total,) = _row(duck, "SELECT count(*) FROM wanted")
    rows, doubled = _row(duck, "SELECT coalesce(sum(copies), 0), coalesce(sum(copies - 1), 0) FROM present")
    (lost,) = _row(duck, "SELECT count(*) FROM wanted ANTI JOIN present USING (origin, epoch, seq)")
    (strange,) = _row(duck, "SELECT count(*) FROM present ANTI JOIN wanted USING (origin, epoch, seq)")
    return Account(total, rows, lost, doubled, strange)


def sums(endpoints: Endpoints, contract: Contract) -> dict[tuple[str, int], tuple[int, int, int, int]]:
    """Return rows, smallest, largest and sum of `seq` by (origin, epoch): cheap enough for 50 million rows."""
    with LakeReader(endpoints) as reader:
        location = reader.metadata_location(contract.catalog, contract.table)
        found = reader.duck.execute(
            "SELECT origin, epoch, count(*), min(seq), max(seq), sum(seq)::BIGINT "
            f"FROM iceberg_scan('{location}') GROUP BY origin, epoch"
        ).fetchall()
    return {(origin, epoch): (count, low, high, total) for origin, epoch, count, low, high, total in found}


def _row(duck: duckdb.DuckDBPyConnection, sql: str) -> tuple[int, ...]:
    found = duck.execute(sql).fetchone()
    assert found is not None
    return tuple(int(value) for value in found)
