"""A record as the row of its table: typed columns from JSON values, the rest in `extra`, one line for COPY."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw, Struct

from contracts.crm_change import NAME_CHARS_MAX, TIME_US_MAX
from lakehouse.mirror.kinds import DECIMAL_DIGITS, DECIMAL_PLACES, KINDS, RecordKind, Type
from lakehouse.mirror.model import NEVER, NEVER_US, Clock, Key, Life, Newest, Record, Register

NULL: Final = "\\N"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"-?\d{1,38}(\.\d{1,38})?([eE][+-]?\d{1,2})?", re.ASCII)
_TEXT: Final = msgspec.json.Decoder(str)
_TIME_MS_MAX: Final = TIME_US_MAX // 1_000


class _State(Struct, frozen=True, array_like=True):
    """The part of a record that is kept for the next merge."""

    fields: dict[str, Register]
    full: Clock = NEVER
    gap: Clock = NEVER
    life: Life = Life()
    newest: Newest = Newest()


_STATE: Final = msgspec.json.Decoder(_State)
_ENCODER: Final = msgspec.json.Encoder()


def record_of(state: str, seen_us: int, swept_us: int) -> Record:
    """Return the record that a row's `merge_state`, `seen_us` and `swept_us` hold."""
    found = _STATE.decode(state)
    return Record(found.fields, found.full, found.gap, found.life, found.newest, seen_us, swept_us)


def state_of(record: Record) -> str:
    """Return a record's `merge_state`."""
    return _ENCODER.encode(_State(record.fields, record.full, record.gap, record.life, record.newest)).decode()


def line_of(kind: RecordKind, key: Key, record: Record) -> str:
    """Return the row as a line in COPY's text format, in the order of `tables.columns_of`, without its end."""
    own, extra = _columns(kind, key, record.fields)
    newest = record.newest
    cells = (
        *[_escaped(part) for part in key],
        *own,
        _escaped("{" + ",".join(extra) + "}"),
        _instant(newest.at_us),
        _escaped(newest.cause or "{}"),
        NULL if record.deleted_us is None else _instant(record.deleted_us),
        "t" if record.life.deleted else "f",
        NULL if record.stale_us is None else _instant(record.stale_us),
        str(record.seen_us),
        str(record.swept_us),
        _escaped(state_of(record)),
    )
    return "\t".join(cells)


def _columns(kind: RecordKind, key: Key, fields: dict[str, Register]) -> tuple[list[str], list[str]]:
    """Return the cells of a kind's own columns, and the members of `extra`."""
    targets = _TARGETS[kind.table]
    cells = [NULL] * len(kind.columns)
    chosen: dict[int, tuple[int, str]] = {}
    extra: list[str] = []
    for name, known in fields.items():
        value = bytes(known.value)
        if value == b"null":
            continue
        target = targets.get(name)
        text = None if target is None else target.convert(value)
        if target is None or text is None:
            extra.append(f"{_name(name)}:{value.decode()}")
            continue
        before = chosen.get(target.index)
        if before is not None:
            # Two fields for one column: the preferred one fills it.
            loser = name if before[0] < target.rank else before[1]
            extra.append(f"{_name(loser)}:{bytes(fields[loser].value).decode()}")
            if loser is name:
                continue
        chosen[target.index] = (target.rank, name)
        cells[target.index] = _escaped(text)
    for index, column in enumerate(kind.columns):
        if column.own_id and index not in chosen:
            cells[index] = _escaped(key[3])
    return cells, extra


class _Target(Struct, frozen=True):
    """The column that a field fills; of two fields for one column the one of lower rank does."""

    index: int
    rank: int
    convert: Callable[[bytes], str | None]


def _as_text(value: bytes) -> str | None:
    """Text as it is; a number or a truth value as it is written."""
    first = value[:1]
    if first == b'"':
        return _TEXT.decode(value)
    return None if first in (b"{", b"[") or value == b"null" else value.decode()


def _as_reference(value: bytes) -> str | None:
    found: Raw | bytes | None = value
    if value[:1] == b"{":
        found = msgspec.json.decode(value, type=dict[str, Raw]).get("id")
    text = None if found is None else _as_text(bytes(found))
    return text if text and len(text) <= NAME_CHARS_MAX else None


def _as_number(value: bytes) -> str | None:
    """A number that the column holds without rounding."""
    text = _as_text(value)
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    fits = isinstance(exponent, int) and exponent >= -DECIMAL_PLACES
    return text if fits and number.adjusted() < DECIMAL_DIGITS - DECIMAL_PLACES else None


def _as_boolean(value: bytes) -> str | None:
    text = _as_text(value)
    return text if text in ("true", "false") else None


def _as_date(value: bytes) -> str | None:
    found = _time(value)
    return None if found is None else found.date().isoformat()


def _as_timestamp(value: bytes) -> str | None:
    found = _time(value)
    return None if found is None else found.isoformat()


_CONVERT: Final[dict[Type, Callable[[bytes], str | None]]] = {
    Type.TEXT: _as_text,
    Type.REFERENCE: _as_reference,
    Type.NUMERIC: _as_number,
    Type.BOOLEAN: _as_boolean,
    Type.DATE: _as_date,
    Type.TIMESTAMP: _as_timestamp,
}


def _targets(kind: RecordKind) -> dict[str, _Target]:
    return {
        name: _Target(index, rank, _CONVERT[column.type])
        for index, column in enumerate(kind.columns)
        for rank, name in enumerate(column.fields)
    }


_TARGETS: Final = {kind.table: _targets(kind) for kind in KINDS}


def _time(value: bytes) -> datetime | None:
    """Read ISO 8601, or HubSpot's milliseconds since 1970; a time without a zone is UTC."""
    text = _as_text(value)
    if text is None or not text.isascii():
        return None
    if text.removeprefix("-").isdigit():
        milliseconds = int(text) if len(text) <= len(str(_TIME_MS_MAX)) else _TIME_MS_MAX + 1
        return _EPOCH + timedelta(milliseconds=milliseconds) if 0 <= milliseconds <= _TIME_MS_MAX else None
    try:
        found = (
            datetime.combine(date.fromisoformat(text), datetime.min.time())
            if len(text) == 10
            else datetime.fromisoformat(text)
        )
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _instant(at_us: int) -> str:
    return NULL if at_us == NEVER_US else (_EPOCH + timedelta(microseconds=at_us)).isoformat()


@lru_cache(maxsize=10_000)
def _name(name: str) -> str:
    return _ENCODER.encode(name).decode()


def _escaped(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if text.isprintable():
        return text
    return text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
