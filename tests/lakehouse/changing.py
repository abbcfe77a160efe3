"""Legal changes of a contract, drawn at random, and values of its fields."""

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.contract import Contract, Conversion, Field, FieldType

NAMES = ("pressure", "note", "state", "count", "a", "b", "c__v1", "f")
UNITS = {"s": 1.0, "ms": 0.001, "min": 60.0}  # how many seconds one is
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: st.sampled_from(
        [
            "",
            "12",
            " 7 ",
            "+3",
            "-4",
            "1.5",
            ".5",
            "2.",
            "1e999",
            "1e3",
            "2147483648",
            "9" * 19,
            "nan",
            "TRUE",
            "压力 🔧",
        ]
    ),
    FieldType.INT: st.integers(-(2**31), 2**31 - 1),
    FieldType.LONG: st.integers(-(2**63), 2**63 - 1),
    FieldType.FLOAT: st.floats(allow_nan=False, allow_infinity=False, width=32),
    FieldType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMPTZ: st.integers(0, 4_000_000_000_000_000),
}
WIDER = {FieldType.INT: FieldType.LONG, FieldType.FLOAT: FieldType.DOUBLE}
NUMBERS = frozenset({FieldType.INT, FieldType.LONG, FieldType.FLOAT, FieldType.DOUBLE})
CHANGES = ("add", "drop", "rename", "swap", "move", "widen", "loosen", "retype", "convert")


def fields(draw: st.DrawFn, contract: Contract, kind: str, next_id: int) -> tuple[Field, ...]:
    """Return the fields of a next version after one change; the same when that kind has nothing to change."""
    now = list(contract.fields)
    at = draw(st.integers(0, len(now) - 1))
    field, free = now[at], [name for name in NAMES if name not in {f.name for f in now}]
    if kind == "add" and free:
        now.insert(at, Field(next_id, draw(st.sampled_from(free)), draw(st.sampled_from(list(VALUES)))))
    elif kind == "drop" and len(now) > 1:
        del now[at]
    elif kind == "rename" and free:
        now[at] = replace(field, name=draw(st.sampled_from(free)))
    elif kind == "swap" and len(now) > 1:
        other = (at + 1) % len(now)
        now[at], now[other] = replace(field, name=now[other].name), replace(now[other], name=field.name)
    elif kind == "move":
        now = draw(st.permutations(now))
    elif kind == "widen" and field.type in WIDER:
        now[at] = replace(field, type=WIDER[field.type])
    elif kind == "loosen":
        now[at] = replace(field, required=not field.required)
    elif kind == "retype":
        now[at] = replace(field, type=draw(st.sampled_from(list(VALUES))))
        if now[at].type not in NUMBERS:
            now[at] = replace(now[at], unit=None, conversions=())
    elif kind == "convert" and field.type in NUMBERS:
        unit = draw(st.sampled_from(sorted(UNITS)))
        stated = tuple(Conversion(u, UNITS[u] / UNITS[unit]) for u in sorted(UNITS) if u != unit)
        now[at] = replace(field, unit=unit, conversions=stated)
    return tuple(now)


@st.composite
def rows(draw: st.DrawFn, contract: Contract) -> list[dict[int, Any]]:
    """One to three rows of a version, by field id; what is required is there."""
    return [
        {f.id: draw(VALUES[f.type] if f.required else st.none() | VALUES[f.type]) for f in contract.fields}
        for _ in range(draw(st.integers(1, 3)))
    ]
