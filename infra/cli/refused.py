"""Refused rows, as the lake has them, and their way back: what the `quarantine` commands ask, decide and say."""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.contract import Contract
from contracts.errors import OperatorMustActError, RetrySafeError
from infra.cli.rows import render
from lakehouse.replays import Entry, PutBack, put_back

QUARANTINE: Final = "lake_a.ops.quarantine"
CHUNK_ROWS: Final = 1_000  # rows sent between two words of progress
LOOK_S: Final = 1.0  # s between two looks at the lake
STALL_S: Final = 60.0  # s without one more row in the table after which waiting ends

Ask = Callable[[str], list[dict[str, Any]]]
Versions = Mapping[str, Sequence[Contract]]
Tell = Callable[[str], None]


class Filters(Struct, frozen=True, omit_defaults=True):
    """Which entries are meant. Times are as Trino writes them, in UTC."""

    contract: str | None = None
    rule: str | None = None
    origin: str | None = None
    since: str | None = None
    until: str | None = None


class Plan(Struct, frozen=True):
    """Entries that can go back, and how many cannot, by reason."""

    ready: tuple[PutBack, ...]
    still: dict[str, int]
    open_rows: int


def sums(filters: Filters, versions: Versions, ask: Ask) -> list[dict[str, Any]]:
    """Return a row per contract, version and rule."""
    return [
        row for contract in _contracts(filters, versions, ask) for row in ask(_sums_sql(contract, filters, versions))
    ]


def open_rows(filters: Filters, versions: Versions, ask: Ask, limit: int) -> list[dict[str, Any]]:
    """Return single entries that are not back, oldest first."""
    names = ("contract", "refused_version", "origin", "refused_epoch", "refused_seq", "refused_by", "rule", "sealed_at")
    found = [
        {name: row[name] for name in names}
        for contract in _contracts(filters, versions, ask)
        for row in ask(_open_sql(contract, filters, versions, limit))
    ]
    return sorted(found, key=lambda row: str(row["sealed_at"]))[:limit]


def shown(origin: str, epoch: int, seq: int, contract: str, versions: Versions, ask: Ask, *, as_json: bool) -> str:
    """Return one entry in full. Raises OperatorMustActError when there is none."""
    _require(contract, versions)
    found = ask(
        f"SELECT * FROM {QUARANTINE} WHERE contract = {_text(contract)} AND origin = {_text(origin)} "
        f"AND refused_epoch = {epoch} AND refused_seq = {seq} ORDER BY sealed_at"
    )
    if not found:
        raise OperatorMustActError(
            f"{contract} of {origin}, epoch {epoch}, seq {seq}: nothing was refused; see `fieldlake quarantine list`"
        )
    back = ask(
        f"SELECT contract_version FROM {_table(versions[contract][-1])} WHERE origin = {_text(origin)} "
        f"AND epoch = {epoch} AND seq = {seq}"
    )
    today = f"back since version {back[0]['contract_version']}" if back else _today(_entry(found[0]), versions)
    lines = [{**row, "today": today} for row in found]
    if as_json:
        return msgspec.json.format(msgspec.json.encode(lines)).decode()
    return "\n".join(f"{name:>16}  {value}" for row in lines for name, value in row.items())


def _today(entry: Entry, versions: Versions) -> str:
    answer = put_back(entry, versions[entry.contract])
    return "can be put back" if answer.batch is not None else f"still refused: {answer.still}"


def plan(filters: Filters, versions: Versions, ask: Ask, limit: int) -> Plan:
    """Return what can go back, by the checks that the lake will make. Raises OperatorMustActError."""
    contract = filters.contract or ""
    _require(contract, versions)
    entries = [_entry(row) for row in ask(_open_sql(contract, filters, versions, limit))]
    answers = [put_back(entry, versions[contract]) for entry in entries]
    still = Counter(answer.still for answer in answers if answer.batch is None)
    return Plan(tuple(answer for answer in answers if answer.batch is not None), dict(still), len(entries))


def send(prepared: Plan, put: Callable[[Iterator[tuple[str, bytes]]], int], tell: Tell) -> None:
    """Put the batches on the log. Raises LogUnavailableError; repeating the command is safe."""
    for at in range(0, len(prepared.ready), CHUNK_ROWS):
        part = prepared.ready[at : at + CHUNK_ROWS]
        put((answer.entry.origin, answer.batch) for answer in part if answer.batch is not None)
        tell(f"{at + len(part)} of {len(prepared.ready)} rows are on the log")


def wait(prepared: Plan, filters: Filters, versions: Versions, ask: Ask, tell: Tell) -> int:
    """Wait until the rows are in their table; return how many of them are."""
    entries = [answer.entry for answer in prepared.ready]
    back, moved_s = 0, time.monotonic()
    while back < len(entries) and time.monotonic() - moved_s < STALL_S:
        found = sum(_back(part, filters, versions, ask) for part in _parts(entries))
        if found > back:
            back, moved_s = found, time.monotonic()
            tell(f"{back} of {len(entries)} rows are in the table")
        if back < len(entries):
            time.sleep(LOOK_S)
    return back


def require_all(prepared: Plan, back: int) -> None:
    """Raise RetrySafeError when some rows are on the log and not in the table yet."""
    if back < len(prepared.ready):
        raise RetrySafeError(
            f"{len(prepared.ready) - back} rows are on the log and not in the table yet: see `fieldlake status`, "
            "then `fieldlake quarantine list`; repeating the command puts no row back twice"
        )


def summary(prepared: Plan, back: int | None, *, as_json: bool) -> str:
    """Return what happened, or with `back` None what would."""
    said = {"open": prepared.open_rows, "can_go_back": len(prepared.ready), "back": back, "still": prepared.still}
    if as_json:
        return msgspec.json.format(msgspec.json.encode(said)).decode()
    head = f"{prepared.open_rows} rows open, {len(prepared.ready)} can go back"
    lines = [head if back is None else f"{head}, {back} are back"]
    return "\n".join([*lines, *(f"{count:>8}  still refused: {why}" for why, count in sorted(prepared.still.items()))])


def table(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """Return rows for a terminal or a program."""
    from federation.trino import Result

    columns = tuple(found[0]) if found else ("contract", "rule")
    return render(Result(columns, [tuple(row.values()) for row in found]), "json" if as_json else "table")


def _contracts(filters: Filters, versions: Versions, ask: Ask) -> list[str]:
    if filters.contract is not None:
        _require(filters.contract, versions)
        return [filters.contract]
    found = ask(f"SELECT DISTINCT contract FROM {QUARANTINE} ORDER BY contract")
    return [row["contract"] for row in found if row["contract"] in versions]


def _require(contract: str, versions: Versions) -> None:
    if contract not in versions:
        raise OperatorMustActError(
            f"contract {contract!r} is not published: expected one of {', '.join(sorted(versions))}"
        )


def _joined(contract: str, filters: Filters, versions: Versions) -> str:
    """Entries, each once, beside the row that it became. The same event may have been refused on two ways."""
    conditions = [f"contract = {_text(contract)}"]
    conditions += [f"rule = {_text(filters.rule)}"] if filters.rule is not None else []
    conditions += [f"origin = {_text(filters.origin)}"] if filters.origin is not None else []
    conditions += [f"sealed_at >= TIMESTAMP {_text(filters.since)}"] if filters.since is not None else []
    conditions += [f"sealed_at < TIMESTAMP {_text(filters.until)}"] if filters.until is not None else []
    columns = "contract, refused_version, origin, refused_epoch, refused_seq, refused_by, rule, original, sealed_at"
    return (
        f"FROM (SELECT DISTINCT {columns} FROM {QUARANTINE} WHERE {' AND '.join(conditions)}) AS q "
        f"LEFT JOIN {_table(versions[contract][-1])} AS t "
        "ON t.origin = q.origin AND t.epoch = q.refused_epoch AND t.seq = q.refused_seq"
    )


def _sums_sql(contract: str, filters: Filters, versions: Versions) -> str:
    return (
        "SELECT q.contract, q.refused_version, q.refused_by, q.rule, count(*) AS refused, count(t.seq) AS back, "
        "count(*) - count(t.seq) AS open, min(q.sealed_at) AS first, max(q.sealed_at) AS last "
        f"{_joined(contract, filters, versions)} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )


def _open_sql(contract: str, filters: Filters, versions: Versions, limit: int) -> str:
    return (
        f"SELECT q.* {_joined(contract, filters, versions)} WHERE t.seq IS NULL "
        f"ORDER BY q.sealed_at, q.origin, q.refused_epoch, q.refused_seq LIMIT {limit}"
    )


def _back(part: Sequence[Entry], filters: Filters, versions: Versions, ask: Ask) -> int:
    named = ", ".join(f"({_text(one.origin)}, {one.refused_epoch}, {one.refused_seq})" for one in part)
    where = f"WHERE (origin, epoch, seq) IN ({named})"
    found = ask(f"SELECT count(*) AS back FROM {_table(versions[filters.contract or ''][-1])} {where}")
    return int(found[0]["back"])


def _parts(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    for at in range(0, len(entries), CHUNK_ROWS):
        yield entries[at : at + CHUNK_ROWS]


def _entry(row: Mapping[str, Any]) -> Entry:
    sealed: dt.datetime = row["sealed_at"]
    return Entry(
        row["contract"], row["refused_version"], row["origin"], row["refused_epoch"], row["refused_seq"],
        row["refused_by"], row["rule"], row["original"], round(sealed.timestamp() * 1_000),
    )  # fmt: skip


def _table(contract: Contract) -> str:
    return f"{contract.catalog}.{contract.table}"


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
