"""A contract with every type, required or not, difference or not, and rows for it: what codecs are tried on."""

from array import array
from collections.abc import Callable
from math import inf, nan
from random import Random
from struct import unpack
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from contracts.contract import Contract, Field, FieldType
from edge_agent.core.codec.record_batch import CODES

EVERYTHING: Final = Contract(
    id="everything",
    version="1.0.0",
    title="",
    purpose="",
    owner="",
    catalog="c",
    namespace="n",
    retention_days=1,
    fields=tuple(
        Field(number, f"{kind.value}_{'must' if must else 'may'}_{'step' if step else 'plain'}", kind, must, step)
        for number, (kind, must, step) in enumerate(
            [(k, m, False) for k in FieldType for m in (True, False)]
            + [(k, True, True) for k in (FieldType.INT, FieldType.LONG, FieldType.TIMESTAMPTZ)]
        )
    ),
)

ROWS_MAX: Final = 9

# A value is drawn from one of the choices of its type; hypothesis draws the seed, because drawing every value of a
# wide row by itself takes it a hundred times as long.
_TEXTS: Final = ("", "预算紧张", "sample", "\U0001f527", "\x00", "é", "ab" * 40)
_LONGS: Final[tuple[Callable[[Random], int], ...]] = (
    lambda rng: rng.randint(-(2**63), 2**63 - 1),
    lambda rng: rng.choice((-(2**63), 2**63 - 1, -1, 0, 1)),
    lambda rng: rng.randint(-(2**40), 2**40) * 10**6,
    lambda rng: rng.randint(-(2**40), 2**40) * 10**3,
    lambda rng: rng.randint(-5, 5),
)
_DOUBLES: Final[tuple[Callable[[Random], float], ...]] = (
    lambda rng: rng.randint(-(10**6), 10**6) / 100,
    lambda rng: rng.random(),
    lambda rng: rng.choice((-0.0, 0.0, 5e-324, 2.0**53, 1e300, inf, -inf, nan)),
    lambda rng: unpack("<d", rng.randbytes(8))[0],
)


def _value(kind: FieldType, which: int, rng: Random) -> Any:
    match kind:
        case FieldType.STRING:
            fresh = "".join(map(chr, rng.choices(range(0x20, 0xD7FF), k=rng.randint(0, 12))))
            return rng.choice(_TEXTS) if which % 2 else fresh
        case FieldType.INT:
            return (
                rng.choice((rng.randint(-(2**31), 2**31 - 1), -(2**31), 2**31 - 1)) if which % 2 else rng.randint(-3, 3)
            )
        case FieldType.LONG | FieldType.TIMESTAMPTZ:
            return _LONGS[which % len(_LONGS)](rng)
        case FieldType.BOOLEAN:
            return rng.random() < 0.5
    value = _DOUBLES[which % len(_DOUBLES)](rng)
    with np.errstate(over="ignore", invalid="ignore"):
        return value if kind is FieldType.DOUBLE else float(np.float32(value))


def rows_of(seed: int) -> list[tuple[Any, ...]]:
    """Return 0 to ROWS_MAX rows; now and then all alike, or a column that is null throughout."""
    rng = Random(seed)
    which = [rng.randrange(20) for _ in EVERYTHING.fields]
    null = [0.0 if field.required else rng.choice((0.0, 0.3, 1.0)) for field in EVERYTHING.fields]

    def row() -> tuple[Any, ...]:
        return tuple(
            None if rng.random() < share else _value(field.type, choice, rng)
            for field, choice, share in zip(EVERYTHING.fields, which, null, strict=True)
        )

    count = rng.randint(0, ROWS_MAX)
    return [row()] * count if rng.random() < 0.2 else [row() for _ in range(count)]


ROWS: Final = st.integers(0, 2**32).map(rows_of)
SEQS: Final = st.tuples(st.integers(0, 2**62), st.integers(1, 1_000))


def seqs_of(first: int, step: int, count: int) -> list[int]:
    """Return ascending sequence numbers."""
    return [first + step * at for at in range(count)]


def columns_of(rows: list[tuple[Any, ...]], arrays: str = "numpy") -> dict[str, Any]:
    """Return rows as columns the way a device has them: required numbers as numpy arrays, `array.array`s or lists."""
    columns: dict[str, Any] = {}
    for place, field in enumerate(EVERYTHING.fields):
        values = [row[place] for row in rows]
        kind = FieldType.LONG if field.type is FieldType.TIMESTAMPTZ else field.type
        if field.required and kind is not FieldType.STRING and arrays == "numpy":
            columns[field.name] = np.array(values, dtype=np.bool_ if kind is FieldType.BOOLEAN else CODES[kind])
        elif field.required and kind in CODES and arrays == "array":
            columns[field.name] = array(CODES[kind], values)
        else:
            columns[field.name] = values
    return columns


def same(found: Any, expected: Any) -> bool:
    """Say whether two columns hold the same values: floats bit for bit, but one NaN is as good as another."""
    one, other = (values.tolist() if hasattr(values, "tolist") else list(values) for values in (found, expected))
    return repr(one) == repr(other)
