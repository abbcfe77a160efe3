"""Read canned queries and bind values to their named parameters."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any, Final, TypeAlias

from msgspec import Struct

from federation.errors import CannedQueryError

Value: TypeAlias = str | int | datetime

PARAMETER_TYPES: Final[dict[str, type[Any]]] = {"string": str, "integer": int, "timestamptz": datetime}
TEXT_CHARS_MAX: Final = 256  # characters of a bound string; the longest identifier that a contract allows has 64

BEHAVIOUR_DAYS: Final = 7  # days of an account's behaviour that are "lately"
WINDOWS_MAX: Final = 20  # telemetry windows beside a record: two for each of an asset's nine sensors

_DECLARATION: Final = re.compile(r"--\s*param\s+([a-z][a-z0-9_]*):\s*([a-z]+)\s*")
# Comments and quoted text first, so that a colon inside them is never taken for a parameter.
_TOKEN: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|:([a-z][a-z0-9_]*)", re.DOTALL)


class CannedQuery(Struct, frozen=True):
    """One document. `order` says which parameter each `?` of `sql` stands for; one may stand in several places."""

    name: str
    sql: str
    parameters: dict[str, str]
    order: tuple[str, ...]

    def bind(self, values: Mapping[str, Value]) -> tuple[Value, ...]:
        """Return the values in the order of the `?`. Raises CannedQueryError on a missing, surplus or wrong one."""
        if values.keys() != self.parameters.keys():
            raise CannedQueryError(
                f"query {self.name}: expected the parameters {sorted(self.parameters)}, found {sorted(values)}"
            )
        for name, kind in self.parameters.items():
            self._check(name, kind, values[name])
        return tuple(values[name] for name in self.order)

    def _check(self, name: str, kind: str, value: Value) -> None:
        label = f"query {self.name}: parameter {name}"
        if not isinstance(value, PARAMETER_TYPES[kind]) or isinstance(value, bool):
            raise CannedQueryError(f"{label}: expected a value of type {kind}, found {type(value).__name__}")
        if isinstance(value, datetime) and value.tzinfo is None:
            raise CannedQueryError(f"{label}: expected a time with its offset from UTC, found {value} without one")
        if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
            raise CannedQueryError(f"{label}: expected at most {TEXT_CHARS_MAX} characters, found {len(value)}")


def parse(name: str, text: str) -> CannedQuery:
    """Return the query that a document states: `-- param NAME: TYPE` lines, then SQL with `:NAME` where it is used."""
    parameters = dict(_DECLARATION.findall(text))
    for parameter, kind in parameters.items():
        if kind not in PARAMETER_TYPES:
            raise CannedQueryError(
                f"query {name}: parameter {parameter}: expected a type of {sorted(PARAMETER_TYPES)}, found {kind!r}"
            )
    order: list[str] = []

    def place(match: re.Match[str]) -> str:
        parameter = match.group(1)
        if parameter is not None:
            order.append(parameter)
            return "?"
        return "" if match.group().startswith(("--", "/*")) else match.group()

    sql = "\n".join(line.rstrip() for line in _TOKEN.sub(place, text).splitlines() if line.strip())
    if set(order) != set(parameters):
        raise CannedQueryError(
            f"query {name}: declares the parameters {sorted(parameters)} and uses {sorted(set(order))}: make them equal"
        )
    return CannedQuery(name, sql, parameters, tuple(order))


def names() -> tuple[str, ...]:
    """Return the names of all canned queries, sorted."""
    found = (entry.name for entry in files("federation.queries").iterdir())
    return tuple(sorted(name.removesuffix(".sql") for name in found if name.endswith(".sql")))


def load(name: str) -> CannedQuery:
    """Read a canned query. Raises CannedQueryError when there is none of that name."""
    if name not in names():
        raise CannedQueryError(f"query {name!r}: expected one of {', '.join(names())}")
    return parse(name, files("federation.queries").joinpath(f"{name}.sql").read_text(encoding="utf-8"))


def everyday_values(query: CannedQuery, asset_id: str, account_id: str, now: datetime) -> dict[str, Value]:
    """Return values for what the query declares, as an engineer in front of an asset would ask it at `now`."""
    known: dict[str, Value] = {
        "asset_id": asset_id,
        "account_id": account_id,
        "as_of": now,
        "since": now - timedelta(days=BEHAVIOUR_DAYS),
        "windows_max": WINDOWS_MAX,
    }
    return {name: known[name] for name in query.parameters}
