"""One contract changed again and again in every way there is, and what its rows must then look like. Pure."""

from collections.abc import Sequence
from random import Random
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.lake import workload
from contracts.contract import Contract, Field, FieldType

KINDS: Final = ("add", "widen", "rename", "reorder", "drop", "optional", "retype", "table")
FIXED: Final = frozenset({"asset_id", "occurred_at", "state"})  # the layout stands on them
WIDER: Final = {FieldType.INT: FieldType.LONG, FieldType.FLOAT: FieldType.DOUBLE}
SPARE: Final = 6  # fields that the first version has of each kind of change, so that none runs out at once


class Change(Struct, frozen=True):
    """A next version, or a contract of its own. `column` shows that it is in force; None: any row of it does."""

    number: int
    kind: str
    contract: Contract
    column: str | None


def first(name: str) -> Contract:
    """Return the version that all others follow from."""
    base = workload.readings(name)
    kinds = (FieldType.INT, FieldType.FLOAT, FieldType.INT, FieldType.DOUBLE)
    more = tuple(Field(20 + at, f"f{20 + at}", kinds[at % len(kinds)], required=at % 2 == 0) for at in range(4 * SPARE))
    return replace(base, fields=(*base.fields, *more))


def plan(start: Contract, changes: int, kinds: Sequence[str], seed: int) -> list[Change]:
    """Return so many changes, the kinds in turn; a field is chosen by the seed."""
    rng, found, now = Random(seed), [], start
    for number in range(1, changes + 1):
        kind = kinds[(number - 1) % len(kinds)]
        if kind == "table":
            own = replace(workload.readings(f"{start.id}_t{number}"), version="1.0.0")
            found.append(Change(number, kind, own, None))
            continue
        fields, column = _changed(now, kind, number, rng)
        major = number if kind in ("retype", "drop", "rename") else int(now.version.partition(".")[0])
        now = replace(now, version=f"{major}.{number}.0", fields=fields)
        found.append(Change(number, kind, now, column))
    return found


def wrong(version: Contract, newest: Contract, rows: pa.Table) -> int:
    """Return how many rows of one version differ from what the newest version should show of them.

    `rows` has `seq` and the table's columns under the newest names. A value of another type is either what it says
    in the new one or null, and never anything else.
    """
    seqs = rows.column("seq").to_numpy().astype(np.int64)
    own = {field.id: field for field in version.fields}
    bad = np.zeros(rows.num_rows, dtype=np.bool_)
    for field in newest.fields:
        if field.name not in rows.column_names:
            bad |= True
            continue
        found = rows.column(field.name).combine_chunks()
        before = own.get(field.id)
        if before is None:
            bad |= np.asarray(found.is_valid())
            continue
        expected = workload.values(before, seqs)
        cast = _cast(expected, found.type)
        same = pc.fill_null(pc.equal(cast, found), False)
        both_null = pc.and_(found.is_null(), expected.is_null())
        fine = pc.or_(same, both_null)
        if _family(before.type) != _family(field.type):
            fine = pc.or_(fine, found.is_null())
        bad |= ~np.asarray(fine)
    return int(bad.sum())


def _changed(now: Contract, kind: str, number: int, rng: Random) -> tuple[tuple[Field, ...], str | None]:
    free = [field for field in now.fields if field.name not in FIXED and not field.difference]
    new_id = max(max(field.id for field in now.fields), 1_000) + number
    match kind:
        case "add":
            added = Field(new_id, f"a{number}", rng.choice((FieldType.INT, FieldType.DOUBLE, FieldType.STRING)))
            return (*now.fields, added), added.name
        case "widen" if narrow := [field for field in free if field.type in WIDER]:
            chosen = rng.choice(narrow)
            return _with(now, replace(chosen, type=WIDER[chosen.type])), chosen.name
        case "rename":
            chosen = rng.choice(free)
            return _with(now, replace(chosen, name=f"r{number}")), f"r{number}"
        case "reorder":
            moved = list(now.fields)
            rng.shuffle(moved)
            return tuple(moved), None
        case "drop":
            chosen = rng.choice(free)
            return tuple(field for field in now.fields if field.id != chosen.id), None
        case "optional" if needed := [field for field in free if field.required]:
            return _with(now, replace(rng.choice(needed), required=False)), None
        case "retype" if numbers := [field for field in free if field.type in (FieldType.INT, FieldType.LONG)]:
            chosen = rng.choice(numbers)
            retyped = replace(chosen, type=FieldType.STRING, checks=type(chosen.checks)())
            return _with(now, retyped), chosen.name
    # Nothing is left to widen, loosen or retype: a new field that the next such change can take.
    added = Field(new_id, f"s{number}", FieldType.INT, required=True)
    return (*now.fields, added), added.name


def _with(now: Contract, changed: Field) -> tuple[Field, ...]:
    return tuple(changed if field.id == changed.id else field for field in now.fields)


def _family(kind: FieldType) -> FieldType:
    return WIDER.get(kind, kind)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        return pa.nulls(len(values), kind)
