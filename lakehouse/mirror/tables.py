"""The mirror's tables and views in PostgreSQL, and the statements over them, made from `kinds`.

Schema `mirror` holds the tables, with deleted records as tombstones; only the mirror writes there. Schema `crm` holds a
view of each with the records that are there, which is what queries read.
"""

from collections.abc import Iterator
from typing import Final

from lakehouse.mirror.kinds import KINDS, RecordKind

MIRROR_SCHEMA: Final = "mirror"
QUERY_SCHEMA: Final = "crm"
KEY_COLUMNS: Final = ("system", "tenant", "object", "record_id")
_KEY: Final = ", ".join(KEY_COLUMNS)
# What every table has behind its own columns, with the type. `merge_state` is what the next merge needs.
COMMON_COLUMNS: Final = (
    ("extra", "jsonb NOT NULL"),
    ("changed_at", "timestamptz"),
    ("cause", "jsonb NOT NULL"),
    ("deleted_at", "timestamptz"),
    ("told_deleted", "boolean NOT NULL"),
    ("stale_since", "timestamptz"),
    ("seen_us", "bigint NOT NULL"),
    ("swept_us", "bigint NOT NULL"),
    ("merge_state", "text NOT NULL"),
)
_SHOWN: Final = ("extra", "changed_at", "cause", "stale_since")
# Percent of a page that inserts fill: an update then finds room beside the row and touches no index.
_FILL_PERCENT: Final = 80

_STATE_TABLES: Final = f"""
CREATE TABLE IF NOT EXISTS {MIRROR_SCHEMA}.positions (
    topic_id  text NOT NULL,
    partition integer NOT NULL,
    next      bigint NOT NULL,
    PRIMARY KEY (topic_id, partition)
);
CREATE TABLE IF NOT EXISTS {MIRROR_SCHEMA}.snapshots (
    system text NOT NULL,
    tenant text NOT NULL,
    object text NOT NULL,
    at_us  bigint NOT NULL,
    id     text NOT NULL,
    marked bigint NOT NULL DEFAULT 0,
    records bigint,
    swept  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (system, tenant, object, at_us, id)
);
CREATE TABLE IF NOT EXISTS {MIRROR_SCHEMA}.marks (
    system text NOT NULL,
    tenant text NOT NULL,
    object text NOT NULL,
    at_us  bigint NOT NULL,
    id     text NOT NULL,
    record_id text NOT NULL,
    PRIMARY KEY (system, tenant, object, at_us, id, record_id)
);
"""


def columns_of(kind: RecordKind) -> tuple[str, ...]:
    """Return the columns of a kind's table, in order."""
    return (*KEY_COLUMNS, *(column.name for column in kind.columns), *(name for name, _ in COMMON_COLUMNS))


def ddl(writer: str) -> Iterator[str]:
    """Yield the statements that make or complete everything, each repeatable; `writer` is the mirror's role.

    A column that a later version of `kinds` adds is made here; its values are moved out of `extra` as records change.
    """
    yield f"CREATE SCHEMA IF NOT EXISTS {MIRROR_SCHEMA}"
    yield f"CREATE SCHEMA IF NOT EXISTS {QUERY_SCHEMA}"
    yield _STATE_TABLES
    for kind in KINDS:
        yield from _table(kind)
        yield _view(kind)
    yield f"GRANT USAGE ON SCHEMA {MIRROR_SCHEMA} TO {writer}"
    yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {MIRROR_SCHEMA} TO {writer}"


def _table(kind: RecordKind) -> Iterator[str]:
    table = f"{MIRROR_SCHEMA}.{kind.table}"
    own = "".join(f"    {column.name} {column.type.sql},\n" for column in kind.columns)
    common = "".join(f"    {name} {sql_type},\n" for name, sql_type in COMMON_COLUMNS)
    keys = "".join(f"    {name} text NOT NULL,\n" for name in KEY_COLUMNS)
    yield (
        f"CREATE TABLE IF NOT EXISTS {table} (\n{keys}{own}{common}    PRIMARY KEY ({_KEY})\n) "
        f"WITH (fillfactor = {_FILL_PERCENT})"
    )
    for column in kind.columns:
        yield f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column.name} {column.type.sql}"
    for name in kind.indexed:
        yield f"CREATE INDEX IF NOT EXISTS {kind.table}_by_{name} ON {table} ({name}) WHERE deleted_at IS NULL"


def _view(kind: RecordKind) -> str:
    own = (column.name for column in kind.columns)
    names = ", ".join((*own, *KEY_COLUMNS, *_SHOWN))
    view = f"VIEW {QUERY_SCHEMA}.{kind.table}"
    shown = f"{view} AS SELECT {names} FROM {MIRROR_SCHEMA}.{kind.table} WHERE deleted_at IS NULL"
    # Replacing keeps the views that others have made over this one; it cannot put a column between two others.
    return f"""
DO $$ BEGIN
    CREATE OR REPLACE {shown};
EXCEPTION WHEN invalid_table_definition THEN
    DROP {view} CASCADE;
    CREATE {shown};
END $$
"""


def incoming(kind: RecordKind) -> str:
    """Statement that makes the session's table for rows on their way in."""
    return (
        f"CREATE TEMPORARY TABLE IF NOT EXISTS incoming_{kind.table} "
        f"(LIKE {MIRROR_SCHEMA}.{kind.table}) ON COMMIT DELETE ROWS"
    )


def copy_in(kind: RecordKind) -> str:
    """Statement that takes lines of `projection.line_of`."""
    return f"COPY incoming_{kind.table} ({', '.join(columns_of(kind))}) FROM STDIN"


def upsert(kind: RecordKind) -> str:
    """Statement that replaces the rows of all records that came in."""
    names = columns_of(kind)
    replaced = ", ".join(f"{name} = excluded.{name}" for name in names if name not in KEY_COLUMNS)
    listed = ", ".join(names)
    return (
        f"INSERT INTO {MIRROR_SCHEMA}.{kind.table} ({listed}) SELECT {listed} FROM incoming_{kind.table} "
        f"ON CONFLICT ({_KEY}) DO UPDATE SET {replaced}"
    )


def read(kind: RecordKind) -> str:
    """Query for the known records among four arrays of key parts."""
    return (
        f"SELECT t.system, t.tenant, t.object, t.record_id, merge_state, seen_us, swept_us "
        f"FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS wanted ({_KEY}) "
        f"JOIN {MIRROR_SCHEMA}.{kind.table} AS t USING ({_KEY})"
    )


def sweep(kind: RecordKind) -> str:
    """Statement that marks what a complete snapshot did not hold; does what `merge.swept` does to a record.

    What it held was seen when it began or later, so nothing has to be looked up in the marks: joined with them, whose
    number the planner does not know, 24,000 records took 95 s.
    """
    return f"""
UPDATE {MIRROR_SCHEMA}.{kind.table}
SET swept_us = %(at_us)s, deleted_at = CASE WHEN told_deleted THEN deleted_at ELSE %(at)s END
WHERE system = %(system)s AND tenant = %(tenant)s AND object = %(object)s AND swept_us < %(at_us)s
  AND seen_us < %(at_us)s
"""


_THIS: Final = (
    "system = %(system)s AND tenant = %(tenant)s AND object = %(object)s AND at_us = %(at_us)s AND id = %(id)s"
)
_UP_TO_THIS: Final = "system = %(system)s AND tenant = %(tenant)s AND object = %(object)s AND at_us <= %(at_us)s"

# Per object, when the newest complete snapshot of it began.
SWEPT: Final = f"SELECT system, tenant, object, max(at_us) FROM {MIRROR_SCHEMA}.snapshots WHERE swept GROUP BY 1, 2, 3"
BEGIN_SNAPSHOT: Final = f"""
INSERT INTO {MIRROR_SCHEMA}.snapshots (system, tenant, object, at_us, id)
VALUES (%(system)s, %(tenant)s, %(object)s, %(at_us)s, %(id)s) ON CONFLICT DO NOTHING
"""
ADD_MARKS: Final = f"""
INSERT INTO {MIRROR_SCHEMA}.marks (system, tenant, object, at_us, id, record_id)
SELECT %(system)s, %(tenant)s, %(object)s, %(at_us)s, %(id)s, unnest(%(records)s::text[]) ON CONFLICT DO NOTHING
"""
COUNT_MARKS: Final = f"UPDATE {MIRROR_SCHEMA}.snapshots SET marked = marked + %(count)s WHERE {_THIS}"
END_SNAPSHOT: Final = f"UPDATE {MIRROR_SCHEMA}.snapshots SET records = %(count)s WHERE {_THIS}"
IS_COMPLETE: Final = f"SELECT marked >= records AND NOT swept FROM {MIRROR_SCHEMA}.snapshots WHERE {_THIS}"
CLOSE_SNAPSHOT: Final = f"UPDATE {MIRROR_SCHEMA}.snapshots SET swept = true WHERE {_THIS}"
# A complete snapshot says all that older ones of its object could.
DROP_MARKS: Final = f"DELETE FROM {MIRROR_SCHEMA}.marks WHERE {_UP_TO_THIS}"
DROP_OLDER: Final = f"DELETE FROM {MIRROR_SCHEMA}.snapshots WHERE {_UP_TO_THIS} AND NOT ({_THIS})"

# How many objects of a tenant have a complete snapshot that began at a time or later.
COMPLETE_SNAPSHOTS_SQL: Final = f"""
SELECT count(DISTINCT object) FROM {MIRROR_SCHEMA}.snapshots
WHERE swept AND system = %s AND tenant = %s AND at_us >= %s
"""

# Excludes every other writer of the mirror until the transaction ends, also while there is no row to lock.
LOCK: Final = f"LOCK TABLE {MIRROR_SCHEMA}.positions IN EXCLUSIVE MODE"
POSITIONS: Final = f"SELECT partition, next FROM {MIRROR_SCHEMA}.positions WHERE topic_id = %s"
MOVE: Final = f"""
INSERT INTO {MIRROR_SCHEMA}.positions VALUES (%s, %s, %s)
ON CONFLICT (topic_id, partition) DO UPDATE SET next = excluded.next
"""


def overview() -> str:
    """Query for the numbers of records by object: there, deleted, stale, and the newest change."""
    counts = (
        f"SELECT '{kind.table}' AS kept_in, system, tenant, object, "
        "count(*) FILTER (WHERE deleted_at IS NULL) AS live, count(deleted_at) AS deleted, "
        "count(stale_since) FILTER (WHERE deleted_at IS NULL) AS stale, max(changed_at) AS newest_change "
        f"FROM {MIRROR_SCHEMA}.{kind.table} GROUP BY system, tenant, object"
        for kind in KINDS
    )
    return " UNION ALL ".join(counts) + " ORDER BY 1, 2, 3, 4"


# Snapshots of which something has arrived and something has not.
OPEN_SNAPSHOTS: Final = f"""
SELECT system, tenant, object, id, marked, records
FROM {MIRROR_SCHEMA}.snapshots WHERE NOT swept ORDER BY 1, 2, 3, at_us
"""
