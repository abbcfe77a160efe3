"""Random rules and events over a contract with every type, and what `contracts.edge_rules` says of them, word by word.

The judge here looks at one event after the other and knows neither arrays nor chunks.
"""

import struct
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st
from msgspec import Struct

from contracts.contract import Contract, Field, FieldType
from contracts.edge_rules import (
    Action,
    AllOf,
    AnyOf,
    Between,
    Compare,
    Condition,
    ContainsAny,
    DeadBand,
    Deduplicate,
    Drop,
    EdgeRule,
    IsNull,
    Keep,
    Not,
    OnChange,
    OneOf,
    Sample,
    normalised,
)
from contracts.sampling import draw, seed_of
from edge_agent.core.events import Column, Events

ORIGIN, EPOCH = "gerät-1", 7
FIELDS = (
    Field(1, "asset_id", FieldType.STRING, required=True),
    Field(2, "occurred_at", FieldType.TIMESTAMPTZ, required=True),
    Field(3, "count", FieldType.INT, required=True),
    Field(4, "total", FieldType.LONG),
    Field(5, "temperature", FieldType.FLOAT, required=True),
    Field(6, "pressure", FieldType.FLOAT),
    Field(7, "volume", FieldType.DOUBLE),
    Field(8, "on", FieldType.BOOLEAN, required=True),
    Field(9, "checked", FieldType.BOOLEAN),
    Field(10, "note", FieldType.STRING),
    Field(11, "served_at", FieldType.TIMESTAMPTZ),
    Field(12, "energy", FieldType.LONG, required=True),
)
CONTRACT = Contract(
    "plant", "1.0.0", "Plant", "Tests.", "tests", "lake_a", "field", FIELDS, 1,
    subject_field="asset_id", event_time_field="occurred_at",
)  # fmt: skip

Row = dict[str, Any]
START = datetime(2026, 3, 1, tzinfo=UTC)
EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
TEXTS = st.sampled_from(
    ["", "IP67", "ＩＰ６７ Gehäuse", "预算紧张，需要比价", "ｎｅｅｄ", "Straße", "STRASSE", "x" * 60, "x" * 61]
)
INTS = st.integers(-3, 3)
LONGS = INTS | st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1])
REALS = st.sampled_from([-1.5, -0.0, 0.0, 0.1, 0.25, 1 / 3, 16_777_217.0, 1e30]) | INTS.map(float)
MOMENTS_US = st.integers(0, 20).map(lambda step: step * 500_000)
_VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: TEXTS,
    FieldType.INT: INTS,
    FieldType.LONG: LONGS,
    FieldType.FLOAT: REALS,
    FieldType.DOUBLE: REALS,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMPTZ: MOMENTS_US.map(lambda us: us + (START - EPOCH_START) // timedelta(microseconds=1)),
}


def values_of(field: Field) -> st.SearchStrategy[Any]:
    """Return values of a field, null among them where it may be."""
    return _VALUES[field.type] if field.required else st.none() | _VALUES[field.type]


ROWS = st.lists(st.fixed_dictionaries({field.name: values_of(field) for field in FIELDS}), max_size=30)


def constants_of(field: Field) -> st.SearchStrategy[Any]:
    """Return values as rules write them."""
    if field.type is FieldType.TIMESTAMPTZ:
        return _VALUES[field.type].map(lambda us: (EPOCH_START + timedelta(microseconds=us)).isoformat())
    if field.type in (FieldType.FLOAT, FieldType.DOUBLE):
        return REALS | INTS
    return _VALUES[field.type]


ANY_FIELD = st.sampled_from(FIELDS)
ORDERED = st.sampled_from([f for f in FIELDS if f.type not in (FieldType.STRING, FieldType.BOOLEAN)])
TEXT_FIELD = st.sampled_from([f for f in FIELDS if f.type is FieldType.STRING])
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    ANY_FIELD.flatmap(lambda f: st.builds(Compare, st.just(f.name), st.sampled_from(["eq", "ne"]), constants_of(f))),
    ORDERED.flatmap(
        lambda f: st.builds(Compare, st.just(f.name), st.sampled_from(["lt", "le", "gt", "ge"]), constants_of(f))
    ),
    ANY_FIELD.flatmap(
        lambda f: st.builds(OneOf, st.just(f.name), st.lists(constants_of(f), min_size=1, max_size=12).map(tuple))
    ),
    ORDERED.flatmap(lambda f: st.builds(Between, st.just(f.name), constants_of(f), constants_of(f))),
    st.builds(
        ContainsAny,
        TEXT_FIELD.map(lambda f: f.name),
        st.lists(st.sampled_from(["ip67", "比价", "NEED", "strasse", "ß"]), min_size=1, max_size=3).map(tuple),
    ),
    st.builds(IsNull, ANY_FIELD.map(lambda f: f.name)),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=5,
)
NUMBERS = st.sampled_from(
    [f for f in FIELDS if f.type in (FieldType.INT, FieldType.LONG, FieldType.FLOAT, FieldType.DOUBLE)]
)
BANDS = st.one_of(
    st.builds(DeadBand, ANY_FIELD.map(lambda f: f.name)),
    st.builds(DeadBand, NUMBERS.map(lambda f: f.name), st.sampled_from([0.0, 0.5, 1.0])),
    st.builds(DeadBand, NUMBERS.map(lambda f: f.name), st.none(), st.sampled_from([0.0, 0.1, 2.0])),
)
NAMES = st.lists(ANY_FIELD.map(lambda f: f.name), min_size=1, max_size=2).map(tuple)
HORIZONS_MS = st.sampled_from([1, 500, 2_000, 60_000])
ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.just(Keep()),
    st.just(Drop()),
    st.builds(Sample, st.sampled_from([0.0, 0.3, 1.0])),
    st.builds(Deduplicate, NAMES, HORIZONS_MS),
    st.builds(OnChange, st.lists(BANDS, min_size=1, max_size=2).map(tuple), HORIZONS_MS, st.just(()) | NAMES),
)
RULES = st.lists(st.tuples(ACTIONS, st.none() | CONDITIONS), max_size=5).map(
    lambda parts: tuple(EdgeRule(f"rule-{n}", n + 1, action, when) for n, (action, when) in enumerate(parts))
)


def events_of(rows: Sequence[Row], first_seq: int = 0) -> Events:
    """Return rows as a device's reader gives them."""
    columns: dict[str, Column] = {}
    for field in FIELDS:
        values = [row[field.name] for row in rows]
        kinds: dict[FieldType, Any] = {
            FieldType.INT: np.int32, FieldType.LONG: np.int64, FieldType.TIMESTAMPTZ: np.int64,
            FieldType.FLOAT: np.float32, FieldType.DOUBLE: np.float64, FieldType.BOOLEAN: np.bool_,
        }  # fmt: skip
        is_array = field.required and field.type is not FieldType.STRING
        columns[field.name] = np.array(values, dtype=kinds[field.type]) if is_array else values
    seqs = np.arange(first_seq, first_seq + len(rows), dtype=np.int64)
    return Events(seqs, columns, [], [])


_ARRAYS = {
    FieldType.INT: "i",
    FieldType.LONG: "q",
    FieldType.TIMESTAMPTZ: "q",
    FieldType.FLOAT: "f",
    FieldType.DOUBLE: "d",
}


def lists_of(rows: Sequence[Row], first_seq: int = 0, *, arrays: bool = False) -> Events:
    """Return rows as columns of plain values; with `arrays`, required numbers as `array.array`."""
    columns: dict[str, Column] = {field.name: [row[field.name] for row in rows] for field in FIELDS}
    for field in FIELDS:
        if arrays and field.required and field.type in _ARRAYS:
            columns[field.name] = array(_ARRAYS[field.type], columns[field.name])
    return Events(array("q", range(first_seq, first_seq + len(rows))), columns, [], [])


class Decided(Struct, frozen=True):
    """What becomes of one event; `rule` is the place of the rule that decided, None without one."""

    kept: bool
    rule: int | None
    score: float | None
    passed: tuple[int, ...]


class Judge:
    """Decides event by event. A score below the threshold is refused; without scores everything is kept."""

    def __init__(self, rules: tuple[EdgeRule, ...], threshold: float) -> None:
        self._rules = rules
        self._threshold = threshold
        self._kept: dict[int, list[Row]] = {place: [] for place in range(len(rules))}

    def decide(self, seq: int, row: Row, score: float | None, *, otherwise: bool) -> Decided:
        row = {name: _held(CONTRACT.field(name), value) for name, value in row.items()}
        came: list[int] = []
        found: Decided | None = None
        for place, rule in enumerate(self._rules):
            if rule.when is not None and not _holds(rule.when, row):
                continue
            decision = self._action(place, rule, seq, row)
            if decision is not None:
                found = Decided(decision, place, None, tuple(came))
                break
            came.append(place)
        if found is None:
            kept = otherwise if score is None else not score < self._threshold
            found = Decided(kept, None, score, tuple(came))
        if found.kept:
            for place in came:
                self._kept[place].append(row)
        return found

    def _action(self, place: int, rule: EdgeRule, seq: int, row: Row) -> bool | None:
        match rule.action:
            case Keep():
                return True
            case Drop():
                return False
            case Sample(fraction=fraction):
                taken = draw(seed_of(ORIGIN, EPOCH, CONTRACT.id, f"rule {rule.id}"), seq) < fraction * 2**53
                return None if taken else False
            case Deduplicate(fields=fields, within_ms=within):
                last = self._last(place, fields, row)
                return False if last is not None and _apart_ms(row, last) < within else None
            case OnChange(fields=bands, by=by, max_silence_ms=silence):
                last = self._last(place, by or ("asset_id",), row)
                if last is None or _apart_ms(row, last) >= silence:
                    return None
                return None if any(_moved(band, last[band.field], row[band.field]) for band in bands) else False

    def _last(self, place: int, fields: tuple[str, ...], row: Row) -> Row | None:
        same = [kept for kept in self._kept[place] if all(kept[name] == row[name] for name in fields)]
        return same[-1] if same else None


def _apart_ms(row: Row, last: Row) -> float:
    apart: float = abs(row["occurred_at"] - last["occurred_at"]) / 1_000
    return apart


def _moved(band: DeadBand, before: Any, value: Any) -> bool:
    if before is None or value is None or (band.absolute is None and band.relative is None):
        return bool(before != value)
    limit = band.absolute if band.absolute is not None else (band.relative or 0.0) * abs(before)
    return bool(abs(value - before) > limit)


def _held(field: Field, value: Any) -> Any:
    """Return a value as the lake will hold it."""
    if field.type is FieldType.FLOAT and value is not None:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def _written(field: Field, value: Any) -> Any:
    if field.type is FieldType.TIMESTAMPTZ:
        return (datetime.fromisoformat(value) - EPOCH_START) // timedelta(microseconds=1)
    return _held(field, value)


def _holds(condition: Condition, row: Row) -> bool:
    match condition:
        case AllOf(of=inner):
            return all(_holds(each, row) for each in inner)
        case AnyOf(of=inner):
            return any(_holds(each, row) for each in inner)
        case Not(of=one):
            return not _holds(one, row)
        case IsNull(field=name):
            return row[name] is None
    value, field = row[condition.field], CONTRACT.field(condition.field)
    if value is None:
        return False
    match condition:
        case Compare(op=op, value=other):
            wanted = _written(field, other)
            return bool(
                {
                    "eq": value == wanted,
                    "ne": value != wanted,
                    "lt": op == "lt" and value < wanted,
                    "le": op == "le" and value <= wanted,
                    "gt": op == "gt" and value > wanted,
                    "ge": op == "ge" and value >= wanted,
                }[op]
            )
        case OneOf(values=values):
            return value in [_written(field, other) for other in values]
        case Between(low=low, high=high):
            return bool(_written(field, low) <= value <= _written(field, high))
        case ContainsAny(texts=texts):
            return any(normalised(text) in normalised(value) for text in texts)
