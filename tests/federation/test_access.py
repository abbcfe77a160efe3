"""The access rules, read the way the engine reads them: the first rule that fits decides, none means no."""

import re
from typing import Any

import msgspec
import pytest

from federation.access import ANALYST_USER, CATALOGS, PLATFORM_USER, access_rules

RULES: dict[str, list[dict[str, Any]]] = msgspec.json.decode(access_rules())
KEYS = ("user", "catalog", "schema", "table")


def first(section: str, **request: str) -> dict[str, Any]:
    """Return the first rule that fits, or an empty one."""
    fitting = (
        rule
        for rule in RULES[section]
        if all(re.fullmatch(rule.get(key, ".*"), request.get(key, "")) for key in KEYS if key in rule)
    )
    return next(fitting, {})


@pytest.mark.parametrize("catalog", CATALOGS)
def test_an_analyst_reads_every_catalog_of_the_stack(catalog: str) -> None:
    assert first("catalogs", user=ANALYST_USER, catalog=catalog)["allow"] == "read-only"
    rule = first("tables", user=ANALYST_USER, catalog=catalog, schema="field", table="telemetry")
    assert rule["privileges"] == ["SELECT"]


def test_an_analyst_owns_nothing_and_runs_no_procedure() -> None:
    assert first("schemas", user=ANALYST_USER, catalog="lake_a", schema="field")["owner"] is False
    assert first("procedures", user=ANALYST_USER, catalog="lake_a", schema="system") == {}
    assert first("catalogs", user=ANALYST_USER, catalog="tpch") == {}


def test_an_analyst_does_not_see_metadata_tables() -> None:
    assert first("tables", user=ANALYST_USER, catalog="lake_a", schema="field", table="telemetry$files") == {}


def test_the_platform_does_everything() -> None:
    assert first("catalogs", user=PLATFORM_USER, catalog="tpch")["allow"] == "all"
    assert {"INSERT", "DELETE", "UPDATE"} <= set(
        first("tables", user=PLATFORM_USER, catalog="lake_a", schema="field", table="telemetry$files")["privileges"]
    )
    assert "execute" in first("queries", user=PLATFORM_USER)["allow"]


@pytest.mark.parametrize("user", ["", "root", "platform2", "analysts", "Analyst"])
@pytest.mark.parametrize("section", list(RULES))
def test_nobody_else_may_do_anything(section: str, user: str) -> None:
    assert first(section, user=user, catalog="lake_a", schema="field", table="telemetry") == {}
