"""Contracts that are measured with, and values that follow from field id and sequence number. Pure.

A value depends on the field's id and not on its name, and equal numbers come out for a type and the wider one, so a row
can be judged under every later version of its contract.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.contract import Checks, Contract, Field, FieldType

START_US: Final = 1_760_000_000_000_000
STEP_US: Final = 1_000  # µs between two events of one origin
ASSETS: Final = 1_000  # per table; an origin sees several machines
NULL_EVERY: Final = 10  # of the values of a field that may be null
INT_SPAN: Final = 1_000
FLOAT_STEPS: Final = 1_024  # a sensor of 10 bits; eighths of them are exact in 32 bits
JITTER_US: Final = 16
TEXT_RUN: Final = 20  # events in a row that name the same machine and state
STATES: Final = ("running", "idle", "开机", "停机", "fault")

Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def _contract(name: str, catalog: str, namespace: str, fields: Sequence[Field]) -> Contract:
    return Contract(
        id=name,
        version="1.0.0",
        title=name.replace("_", " "),
        purpose="Measure what the lake does with it.",
        owner="benchmarks",
        catalog=catalog,
        namespace=namespace,
        fields=tuple(fields),
        retention_days=400,
        subject_kind="asset",
        subject_field="asset_id",
        event_time_field="occurred_at",
        sort_fields=("asset_id", "occurred_at"),
    )


def readings(name: str, catalog: str = "lake_a", namespace: str = "field") -> Contract:
    """Return a contract of 8 columns, each with a check."""
    span = Checks(minimum=-INT_SPAN, maximum=INT_SPAN)
    return _contract(
        name,
        catalog,
        namespace,
        (
            Field(1, "asset_id", FieldType.STRING, required=True, checks=Checks(max_length=64)),
            Field(2, "occurred_at", FieldType.TIMESTAMPTZ, required=True, difference=True),
            Field(3, "state", FieldType.STRING, required=True, checks=Checks(valid_values=STATES)),
            Field(4, "cycles", FieldType.LONG, required=True, difference=True, checks=Checks(minimum=0)),
            Field(5, "pressure", FieldType.INT, required=True, checks=span),
            Field(6, "temperature", FieldType.FLOAT, required=True, checks=Checks(minimum=0, maximum=FLOAT_STEPS)),
            Field(7, "vibration", FieldType.FLOAT, checks=Checks(minimum=0, maximum=FLOAT_STEPS)),
            Field(8, "flow", FieldType.DOUBLE, checks=Checks(minimum=0, maximum=FLOAT_STEPS)),
        ),
    )


def wide(name: str) -> Contract:
    """Return a contract of 23 columns."""
    kinds = (FieldType.DOUBLE, FieldType.INT, FieldType.FLOAT, FieldType.LONG, FieldType.BOOLEAN)
    return _contract(
        name,
        "lake_a",
        "field",
        (
            Field(1, "asset_id", FieldType.STRING, required=True, checks=Checks(max_length=64)),
            Field(2, "occurred_at", FieldType.TIMESTAMPTZ, required=True, difference=True),
            Field(3, "state", FieldType.STRING, required=True, checks=Checks(valid_values=STATES)),
            *(Field(n, f"m{n}", kinds[n % len(kinds)], required=n % 2 == 0) for n in range(4, 24)),
        ),
    )


def rows(contract: Contract, seqs: Numbers) -> pa.Table:
    """Return the contract's fields of these events, in payload types: a timestamp as a 64-bit integer."""
    return pa.table({field.name: values(field, seqs) for field in contract.fields})


def values(field: Field, seqs: Numbers) -> pa.Array:
    """Return one field's values of these events."""
    hashes = _hashes(field.id, seqs // TEXT_RUN if field.type is FieldType.STRING else seqs)
    nulls = None if field.required else hashes % NULL_EVERY == 0
    match field.type:
        case FieldType.STRING:
            return _texts(field, hashes, nulls)
        case FieldType.INT | FieldType.LONG if field.difference:
            array = seqs * 3 + (hashes % 3).astype(np.int64)
        case FieldType.INT | FieldType.LONG:
            array = (hashes % (2 * INT_SPAN + 1)).astype(np.int64) - INT_SPAN
        case FieldType.TIMESTAMPTZ:
            array = START_US + seqs * STEP_US + (hashes % JITTER_US).astype(np.int64)
        case FieldType.FLOAT | FieldType.DOUBLE:
            return pa.array((hashes % FLOAT_STEPS).astype(np.float64) / 8, type=_ARROW[field.type], mask=nulls)
        case FieldType.BOOLEAN:
            return pa.array(hashes % 2 == 0, mask=nulls)
    return pa.array(array, type=_ARROW[field.type], mask=nulls)


_ARROW: Final = {
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.TIMESTAMPTZ: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
}


def _texts(field: Field, hashes: Hashes, nulls: npt.NDArray[np.bool_] | None) -> pa.Array:
    words = field.checks.valid_values or tuple(f"机床-{field.id}-{number:03d}" for number in range(ASSETS))
    places = pa.array((hashes % len(words)).astype(np.int32), mask=nulls)
    return pa.array(words, pa.string()).take(places)


def _hashes(field_id: int, seqs: Numbers) -> Hashes:
    """Mix well and fast: three rounds of shift and multiply, the constants of the generator SplitMix64."""
    mixed: Hashes = seqs.astype(np.uint64) * np.uint64(64) + np.uint64(field_id)
    with np.errstate(over="ignore"):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
