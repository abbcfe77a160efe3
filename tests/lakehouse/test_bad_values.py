"""Values at and beyond every limit, through the whole ingest: each lands or is refused with its reason, and the batch
beside it gets through."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from msgspec.structs import replace

from contracts.contract import FIELDS_MAX, SYSTEM_COLUMNS, Contract, Field, FieldType, encode
from contracts.errors import BatchFormatError
from contracts.microbatch import HEADER_BYTES, RAW_BYTES_MAX, parse
from contracts.topics import CONTRACTS as CONTRACTS_TOPIC
from lakehouse.checks import TIME_US_MAX, TIME_US_MIN
from lakehouse.registry import contract_key
from tests.lakehouse.frames import CONTRACTS, frame, payload, telemetry
from tests.lakehouse.world import World

TELEMETRY = CONTRACTS["telemetry"]
TYPES = ("string", "int", "long", "float", "double", "boolean", "timestamptz")
# One optional field of every type, none with a check of its own: only the platform's limits are left.
PLAIN = replace(
    TELEMETRY,
    id="plain",
    fields=tuple(Field(n, name, FieldType(name)) for n, name in enumerate(TYPES, start=1)),
    subject_field=None,
    event_time_field=None,
    sort_fields=(),
)
YEAR_10000_US = 253_402_300_800_000_000
LONG_ID = "资产-🛠️-" * 50  # 300 characters

LANDS: list[tuple[str, Any]] = [
    ("string", ""),
    ("string", LONG_ID),
    ("string", "🧑‍🔧🇨🇳‏عربي\u0000\ufeff\u2028"),
    ("int", -(2**31)),
    ("int", 2**31 - 1),
    ("long", -(2**63)),
    ("long", 2**63 - 1),
    ("float", 3.4028234663852886e38),
    ("double", 2.0**63),
    ("double", -0.0),
    ("double", 5e-324),
    ("double", 1.7976931348623157e308),
    ("boolean", False),
    ("timestamptz", TIME_US_MIN),
    ("timestamptz", TIME_US_MAX),
    ("timestamptz", -1),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("float", float("nan"), "float.finite"),
    ("double", float("-inf"), "double.finite"),
    ("timestamptz", YEAR_10000_US, "timestamptz.maximum"),
    ("timestamptz", TIME_US_MIN - 1, "timestamptz.minimum"),
    ("timestamptz", 2**63 - 1, "timestamptz.maximum"),
]


@pytest.fixture
def plain(world: World) -> World:
    """A world with the contract of one field per type."""
    world.broker.publish(PLAIN)
    return world


def neighbours(world: World) -> None:
    """A sound batch of another device, sent beside the one under test."""
    world.broker.batch("device-2", frame(TELEMETRY, telemetry(range(5))))


def assert_neighbours_landed(world: World) -> None:
    assert [r["seq"] for r in world.records("telemetry") if r["origin"] == "device-2"] == list(range(5))
    assert world.broker.watermarks()["device-2", "telemetry"].upto == 5


def test_every_value_within_the_limits_lands_bit_by_bit(plain: World) -> None:
    rows = [{"seq": n, name: value} for n, (name, value) in enumerate(LANDS)]
    plain.broker.batch("device-1", frame(PLAIN, rows))
    plain.drain(plain.start())
    found = plain.rows(PLAIN)
    numbers = found.set_column(
        found.column_names.index("timestamptz"), "timestamptz", found["timestamptz"].cast(pa.int64())
    ).to_pylist()
    assert len(numbers) == len(LANDS)
    for row, (name, value) in zip(numbers, LANDS, strict=True):
        if isinstance(value, float):
            assert struct.pack("<d", row[name]) == struct.pack("<d", value)
        else:
            assert row[name] == value
        assert [row[other] for other in TYPES if other != name] == [None] * (len(TYPES) - 1)
    assert plain.records("quarantine") == []


@pytest.mark.parametrize(("name", "value", "rule"), REFUSED, ids=[f"{rule} {value}" for _, value, rule in REFUSED])
def test_every_value_beyond_the_limits_is_refused_alone(plain: World, name: str, value: Any, rule: str) -> None:
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 0}, {"seq": 1, name: value}, {"seq": 2}]))
    neighbours(plain)
    plain.drain(plain.start())
    assert plain.rows(PLAIN)["seq"].to_pylist() == [0, 2]
    (found,) = plain.records("quarantine")
    assert (found["seq"], found["rule"]) == (1, rule)
    assert_neighbours_landed(plain)


def of_another_type(column: str, kind: pa.DataType, values: list[Any]) -> bytes:
    """A payload that claims to be PLAIN and has another type in one column."""
    schema = pa.schema([pa.field(n, kind if n == column else t) for n, t in zip(_names(), _types(), strict=True)])
    table = pa.table(
        {n: values if n == column else ([0, 1, 1] if n == "seq" else [None] * 3) for n in _names()}, schema=schema
    )
    (batch,) = table.to_batches()
    message: bytes = batch.serialize().to_pybytes()
    return message


def _names() -> list[str]:
    return ["seq", *TYPES]


def _types() -> list[pa.DataType]:
    return [pa.int64(), pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.int64()]


def test_a_field_that_becomes_text_without_a_new_version_is_buried_and_the_next_batch_lands(plain: World) -> None:
    rows = [{"seq": n} for n in range(3)]
    plain.broker.batch("device-1", frame(PLAIN, [r | {"long": r["seq"]} for r in rows]))
    changed = of_another_type("long", pa.string(), ["7", "eight", "九"])
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 3 + n} for n in range(3)], raw=changed))
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 6, "long": 6}]))
    neighbours(plain)
    plain.drain(plain.start())
    assert [(r["seq"], r["long"]) for r in plain.rows(PLAIN).to_pylist()] == [(0, 0), (1, 1), (2, 2), (6, 6)]
    (letter,) = plain.broker.dead()
    assert (letter.reason, letter.origin) == ("bad_payload", "device-1")
    assert plain.broker.watermarks()["device-1", "plain"].upto == 3
    assert_neighbours_landed(plain)


def test_a_field_that_becomes_text_in_a_new_version_loses_no_row_silently(plain: World) -> None:
    text = tuple(replace(field, type=FieldType.STRING) if field.name == "long" else field for field in PLAIN.fields)
    retyped = replace(PLAIN, version="2.0.0", fields=text)
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 0, "long": 7}]))
    ingest = plain.start()
    plain.drain(ingest)
    plain.broker.publish(retyped)
    plain.broker.batch("device-1", frame(retyped, [{"seq": 1, "long": "eight"}]))
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 2, "long": 9}]))
    neighbours(plain)
    plain.drain(ingest)
    landed = {row["seq"]: row for row in plain.rows(PLAIN).to_pylist()}
    assert {seq: row["long"] for seq, row in landed.items() if seq} == {1: "eight", 2: "9"}
    (before,) = set(landed[0]) - set(TYPES) - {*SYSTEM_COLUMNS}
    assert [landed[seq][before] for seq in range(3)] == [7, None, 9]
    assert plain.broker.dead() == []
    assert_neighbours_landed(plain)


# A payload carries no schema, so a type shows only by its layout: what is too short or too long for the contract's.
# A device refuses 2^63 before it is packed; a foreign writer's unsigned column has the layout of a signed one.
OTHER_LAYOUTS = [
    pytest.param(pa.int16(), [1, 2, 3], id="narrower"),
    pytest.param(pa.string(), [str(2**63), "", ""], id="2^63 as text"),
    pytest.param(pa.list_(pa.int64()), [[2**62, 2**62], [], []], id="list"),
    pytest.param(pa.null(), [None, None, None], id="nothing"),
]


@pytest.mark.parametrize(("kind", "values"), OTHER_LAYOUTS)
def test_a_column_of_another_layout_is_buried_and_never_read_as_a_number(
    plain: World, kind: pa.DataType, values: list[Any]
) -> None:
    changed = of_another_type("long", kind, values)
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": n} for n in range(3)], raw=changed))
    neighbours(plain)
    plain.drain(plain.start())
    assert [letter.reason for letter in plain.broker.dead()] == ["bad_payload"]
    assert plain.rows(PLAIN).num_rows == 0
    assert_neighbours_landed(plain)


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_batches_of_one_row_and_of_a_million_land(plain: World, size: int) -> None:
    narrow = replace(PLAIN, id="narrow", fields=(Field(1, "boolean", FieldType.BOOLEAN),))
    plain.broker.publish(narrow)
    seqs = pa.array(np.ones(size, dtype=np.int64) - (np.arange(size) == 0))
    raw = pa.record_batch({"seq": seqs, "boolean": pa.array(np.arange(size) % 2 == 0)}).serialize().to_pybytes()
    plain.broker.batch("device-1", frame(narrow, [], raw=raw, first_seq=0, span=size, count=size))
    neighbours(plain)
    plain.drain(plain.start())
    found = plain.rows(narrow)
    assert found.num_rows == size
    assert pc.count_distinct(found["seq"]).as_py() == size
    assert pc.sum(found["boolean"]).as_py() == (size + 1) // 2
    assert plain.broker.watermarks()["device-1", "narrow"].upto == size
    assert_neighbours_landed(plain)


def test_a_batch_that_is_too_large_once_inflated_is_refused_by_its_header(plain: World) -> None:
    rows = [{"seq": n} for n in range(2)]
    sound = frame(PLAIN, rows)
    header, _ = parse(sound)
    with pytest.raises(BatchFormatError, match=f"at most {RAW_BYTES_MAX}"):
        frame(PLAIN, rows, raw=bytes(RAW_BYTES_MAX + 1))
    forged = bytearray(sound)
    where = forged.index(header.raw_bytes.to_bytes(4, "little"), 0, HEADER_BYTES)
    forged[where : where + 4] = (RAW_BYTES_MAX + 1).to_bytes(4, "little")
    plain.broker.batch("device-1", bytes(forged))
    neighbours(plain)
    plain.drain(plain.start())
    (letter,) = plain.broker.dead()
    assert letter.reason in {"wrong_checksum", "bad_format"}
    assert_neighbours_landed(plain)


def test_an_empty_batch_moves_the_watermark_and_adds_no_row(plain: World) -> None:
    plain.broker.batch("device-1", frame(PLAIN, [{"seq": 0, "long": 1}]))
    plain.broker.batch("device-1", frame(PLAIN, [], first_seq=1, span=1_000, raw=payload(PLAIN, []), count=0))
    neighbours(plain)
    plain.drain(plain.start())
    assert plain.rows(PLAIN)["seq"].to_pylist() == [0]
    assert plain.broker.watermarks()["device-1", "plain"].upto == 1_001
    assert plain.broker.dead() == []
    assert_neighbours_landed(plain)


def wide(fields: int) -> Contract:
    return replace(PLAIN, id="wide", fields=tuple(Field(n, f"c{n}", FieldType.LONG) for n in range(1, fields + 1)))


@pytest.mark.parametrize("fields", [FIELDS_MAX, FIELDS_MAX + 1, 1_500])
def test_a_contract_with_very_many_fields_lands_or_is_refused_with_its_reason(tmp_path: Path, fields: int) -> None:
    world = World(tmp_path)
    contract = wide(fields)
    world.broker.append(CONTRACTS_TOPIC, encode(contract), contract_key(contract).encode())
    row = {"seq": 0} | {f"c{n}": n for n in range(1, fields + 1)}
    world.broker.batch("device-1", frame(contract, [row]))
    neighbours(world)
    ingest = world.start()
    world.drain(ingest)
    if fields <= FIELDS_MAX:
        (found,) = world.rows(contract).to_pylist()
        assert {name: found[name] for name in row} == row
        assert world.broker.dead() == []
    else:
        assert any(f"expected 1 to {FIELDS_MAX} fields, found {fields}" in str(error) for error in ingest.errors)
        assert [letter.reason for letter in world.broker.dead()] == ["unknown_contract"]
        assert ("device-1", "wide") not in world.broker.watermarks()
    assert_neighbours_landed(world)
    world.close()
