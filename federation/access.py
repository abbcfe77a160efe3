"""Who may do what in Trino, as the document that its file-based access control reads.

Every section ends without a rule for other users, and Trino refuses what no rule allows: a user with a valid password
but without a role here cannot even run `SELECT 1`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

PLATFORM_USER: Final = "platform"
ANALYST_USER: Final = "analyst"
CATALOGS: Final = ("lake_a", "lake_b", "crm")


class _Rule(Struct, frozen=True, omit_defaults=True):
    user: str
    catalog: str | None = None
    schema: str | None = None
    table: str | None = None
    allow: bool | str | Sequence[str] | None = None
    owner: bool | None = None
    privileges: Sequence[str] | None = None
    property: str | None = None


class _Rules(Struct, frozen=True):
    catalogs: Sequence[_Rule]
    schemas: Sequence[_Rule]
    tables: Sequence[_Rule]
    functions: Sequence[_Rule]
    procedures: Sequence[_Rule]
    queries: Sequence[_Rule]
    system_information: Sequence[_Rule]
    system_session_properties: Sequence[_Rule]
    catalog_session_properties: Sequence[_Rule]


def access_rules(catalogs: Sequence[str] = CATALOGS) -> bytes:
    """Return `rules.json`: the platform may do everything, an analyst may read rows of `catalogs`, others nothing.

    An analyst does not see metadata tables (`name$files`, `name$snapshots`): their names and bounds repeat the data;
    nor the tables of the CRM mirror, only the views over them.
    These rules do not reach `ALTER TABLE ... EXECUTE`, which the engine lets everybody do who can read: the lake's
    catalogs must be read-only themselves (`iceberg.security=read_only`).
    """
    readable = "|".join(catalogs)
    privileges = ("SELECT", "INSERT", "DELETE", "UPDATE", "OWNERSHIP", "GRANT_SELECT")
    rules = _Rules(
        catalogs=(
            _Rule(PLATFORM_USER, catalog=".*", allow="all"),
            _Rule(ANALYST_USER, catalog=f"{readable}|system", allow="read-only"),
        ),
        schemas=(_Rule(PLATFORM_USER, owner=True), _Rule(ANALYST_USER, owner=False)),
        tables=(
            _Rule(PLATFORM_USER, privileges=privileges),
            # The tables behind the CRM's views: deleted records, and what the mirror needs for itself.
            _Rule(ANALYST_USER, catalog="crm", schema="mirror", privileges=()),
            _Rule(ANALYST_USER, catalog=readable, table="[^$]*", privileges=("SELECT",)),
            _Rule(ANALYST_USER, catalog="system", schema="metadata|jdbc", privileges=("SELECT",)),
        ),
        functions=(_Rule(PLATFORM_USER, privileges=("EXECUTE", "GRANT_EXECUTE", "OWNERSHIP")),),
        procedures=(_Rule(PLATFORM_USER, privileges=("EXECUTE",)),),
        queries=(
            _Rule(PLATFORM_USER, allow=("execute", "view", "kill")),
            _Rule(ANALYST_USER, allow=("execute",)),
        ),
        system_information=(_Rule(PLATFORM_USER, allow=("read", "write")),),
        # A session property can lower the retention that protects files which a commit is about to name.
        system_session_properties=(_Rule(PLATFORM_USER, property=".*", allow=True),),
        catalog_session_properties=(_Rule(PLATFORM_USER, catalog=".*", property=".*", allow=True),),
    )
    return msgspec.json.format(msgspec.json.encode(rules))
