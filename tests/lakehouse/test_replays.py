"""Refused rows and their way back: bit for bit, and once."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.contract import Checks, Contract, Field, FieldType
from contracts.microbatch import Flag, parse
from lakehouse.errors import OriginalError
from lakehouse.originals import row_of, row_of_device, texts
from lakehouse.ports import Step
from lakehouse.replays import Entry, put_back
from lakehouse.schema import wire_schema
from tests.lakehouse.frames import CONTRACTS, SEALED_AT_MS, clicks, evolved, frame, telemetry
from tests.lakehouse.pair import Pair
from tests.lakehouse.world import USUAL, World

TELEMETRY, CLICKS = CONTRACTS["telemetry"], CONTRACTS["clicks"]
KINDS = tuple(Field(at, kind.value, kind) for at, kind in enumerate(FieldType, 1))
EVERY_KIND = Contract("kinds", "1.0.0", "Kinds", "Every type.", "nobody", "lake_a", "field", KINDS, 1)
NARROW = np.array([0x7FC00001, 0xFFC00000, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32)
WIDE = np.array([0x7FF8000000000001, 0x7FF0000000000001, 0xFFF8000000000000, 0x8000000000000000, 1], np.uint64)
whole = {32: st.integers(-(2**31), 2**31 - 1), 64: st.integers(-(2**63), 2**63 - 1)}
texts_of_all_kinds = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["nan", "预算紧张, 😀", "\0"])


@st.composite
def rows(draw: st.DrawFn) -> pa.Table:
    count = draw(st.integers(1, 4))
    narrow = st.integers(0, 2**32 - 1) | st.sampled_from(NARROW.tolist())
    wide = st.integers(0, 2**64 - 1) | st.sampled_from(WIDE.tolist())
    values: dict[FieldType, Any] = {
        FieldType.STRING: texts_of_all_kinds, FieldType.INT: whole[32], FieldType.LONG: whole[64],
        FieldType.FLOAT: narrow, FieldType.DOUBLE: wide, FieldType.BOOLEAN: st.booleans(),
        FieldType.TIMESTAMPTZ: whole[64],
    }  # fmt: skip
    schema = wire_schema(EVERY_KIND)
    arrays = [pa.array(range(count), pa.int64())]
    for field in KINDS:
        drawn = draw(st.lists(values[field.type], min_size=count, max_size=count))
        nulls = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
        if field.type in (FieldType.FLOAT, FieldType.DOUBLE):
            bits = np.array(drawn, np.uint32 if field.type is FieldType.FLOAT else np.uint64)
            numbers = bits.view(np.float32 if field.type is FieldType.FLOAT else np.float64)
            arrays.append(pa.array(numbers, schema.field(field.name).type, mask=nulls))
        else:
            shown = [None if null else value for value, null in zip(drawn, nulls, strict=True)]
            arrays.append(pa.array(shown, schema.field(field.name).type))
    return pa.Table.from_arrays(arrays, schema=schema)


def bits(table: pa.Table) -> list[Any]:
    """Values that are equal only when the bits are."""
    found: list[Any] = []
    for column in table.columns:
        nulls = column.is_null().to_pylist()
        if pa.types.is_floating(column.type):
            numbers = np.asarray(column.combine_chunks().fill_null(0))
            shown = numbers.view(np.uint32 if numbers.dtype == np.float32 else np.uint64).tolist()
        else:
            shown = column.to_pylist()
        found.append([None if null else value for value, null in zip(shown, nulls, strict=True)])
    return found


@given(rows())
def test_an_original_gives_its_row_back_bit_for_bit(table: pa.Table) -> None:
    back = [row_of(text, EVERY_KIND) for text in texts(table, EVERY_KIND)]
    assert bits(pa.concat_tables(back)) == bits(table)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"seq":1}', '{"seq":1,"user_id":5}', "nonsense"],
)
def test_text_that_is_no_row_of_the_contract_says_so(text: str) -> None:
    with pytest.raises(OriginalError):
        row_of(text, CLICKS)


def device_line(**change: Any) -> str:
    shown = {
        "user_id": "客户-1",
        "session_id": "visit-1",
        "event": "download",
        "occurred_at": "2026-01-01T00:00:00Z",
        "dwell_s": 2,
        "more": [],
    }
    return str(shown | change).replace("'", '"')


def test_a_line_that_a_device_refused_is_read_by_the_contract_of_today() -> None:
    (row,) = row_of_device(device_line(), 17, CLICKS).to_pylist()
    assert (row["seq"], row["user_id"], row["dwell_s"], row["object"]) == (17, "客户-1", 2.0, None)
    assert row["occurred_at"] == 1_767_225_600_000_000
    for wrong in ({"user_id": 5}, {"occurred_at": "2026-01-01T00:00:00"}, {"dwell_s": "long"}, {"occurred_at": 1.5}):
        with pytest.raises(OriginalError):
            row_of_device(device_line(**wrong), 17, CLICKS)


def entries(world: World) -> list[Entry]:
    return [
        Entry(
            row["contract"], row["refused_version"], row["origin"], row["refused_epoch"], row["refused_seq"],
            row["refused_by"], row["rule"], row["original"], int(row["sealed_at"].timestamp() * 1_000),
        )
        for row in world.records("quarantine")
    ]  # fmt: skip


def fixed(**checks: Checks) -> Contract:
    """Telemetry with other checks: the same wire schema."""
    fields = tuple(replace(f, checks=checks.get(f.name, f.checks)) for f in TELEMETRY.fields)
    return replace(TELEMETRY, version="1.0.1", fields=fields)


def refuse_two(world: World, ingest: Pair) -> None:
    """Rows 2 and 4 of six are refused, for different reasons."""
    found = telemetry(range(6))
    found[2] |= {"f3": -100_001}
    found[4] |= {"score": math.nan}
    world.broker.batch("device-1", frame(TELEMETRY, found))
    world.drain(ingest)


def send(world: World, versions: list[Contract]) -> list[str]:
    """Publish what can be put back; return why the others cannot."""
    answers = [put_back(entry, versions) for entry in entries(world)]
    for answer in answers:
        if answer.batch is not None:
            world.broker.batch(answer.entry.origin, answer.batch)
    return [answer.still for answer in answers if answer.batch is None]


def test_a_mended_row_comes_back_once_however_often_it_is_sent(world: World) -> None:
    ingest = world.start()
    refuse_two(world, ingest)
    mended = fixed(f3=Checks(minimum=-200_000))
    world.broker.publish(mended)
    for _ in range(3):
        assert send(world, [TELEMETRY, mended]) == ["score.finite"]
        world.drain(ingest)
    ingest = world.start()  # a restart knows of it too
    assert send(world, [TELEMETRY, mended]) == ["score.finite"]
    world.drain(ingest)
    found = world.records("telemetry")
    assert [(row["seq"], row["f3"]) for row in found if row["seq"] < 3][2] == (2, -100_001)
    assert [row["seq"] for row in found] == [0, 1, 2, 3, 5]
    back = found[2]
    assert (back["origin"], back["epoch"], back["contract_version"]) == ("device-1", 1, "1.0.1")
    assert int(back["sealed_at"].timestamp() * 1_000) == SEALED_AT_MS
    assert len(world.records("quarantine")) == 2
    assert set(world.broker.watermarks()) == {("device-1", "telemetry")}


def test_a_row_that_is_refused_again_waits_for_the_next_fix_without_a_second_entry(world: World) -> None:
    ingest = world.start()
    refuse_two(world, ingest)
    loose = fixed(f3=Checks(minimum=-200_000))
    send(world, [TELEMETRY, loose])  # this side knows of a fix that the lake does not follow yet
    world.drain(ingest)
    assert [row["seq"] for row in world.records("telemetry")] == [0, 1, 3, 5]
    assert len(world.records("quarantine")) == 2
    world.broker.publish(loose)
    send(world, [TELEMETRY, loose])
    world.drain(ingest)
    assert [row["seq"] for row in world.records("telemetry")] == [0, 1, 2, 3, 5]


def test_a_row_comes_back_in_a_newer_version_by_the_ids_of_its_fields(world: World) -> None:
    ingest = world.start()
    refuse_two(world, ingest)
    newer = evolved(fixed(f3=Checks()), drop="f9")
    world.broker.publish(newer)
    assert send(world, [TELEMETRY, newer]) == ["score.finite"]
    world.drain(ingest)
    (back,) = (row for row in world.records("telemetry") if row["seq"] == 2)
    assert (back["f3"], back["humidity"], back["contract_version"]) == (-100_001, None, newer.version)


def test_an_event_that_its_device_refused_comes_back_with_its_own_number(tmp_path: Path) -> None:
    world = World(tmp_path, USUAL)
    ingest = world.start()
    world.broker.batch("device-1", frame(CLICKS, clicks(range(5)), span=6))
    row = {
        "seq": 0, "contract": "clicks", "refused_version": "0.9.0", "refused_epoch": 1, "refused_seq": 5,
        "refused_by": "device", "rule": "dwell_s.type", "original": device_line(),
    }  # fmt: skip
    world.broker.batch("device-1", frame(CONTRACTS["quarantine"], [row], epoch=3))
    world.drain(ingest)
    for _ in range(2):
        assert send(world, [CLICKS]) == []
        world.drain(ingest)
    assert [(r["epoch"], r["seq"]) for r in world.records("clicks")] == [(1, seq) for seq in range(6)]
    world.close()


@pytest.mark.parametrize("dies_at", list(Step), ids=lambda step: step.value)
def test_a_crash_while_rows_come_back_loses_and_doubles_none(world: World, dies_at: Step) -> None:
    refuse_two(world, world.start())
    mended = fixed(f3=Checks(), score=Checks())
    world.broker.publish(mended)

    armed: list[int] = []

    def fault(step: Step, table: str = "") -> None:
        if armed and step is dies_at and table in ("", "telemetry"):
            raise RuntimeError(step.value)

    ingest = world.start(fault)
    world.broker.batch("device-1", frame(TELEMETRY, telemetry(range(6, 9))))
    assert send(world, [TELEMETRY, mended]) == ["score.finite"]
    armed.append(1)
    if dies_at is not Step.QUARANTINE_HANDED_OVER:  # nothing is refused in that round
        with pytest.raises(RuntimeError):
            world.drain(ingest)
    ingest = world.start()
    send(world, [TELEMETRY, mended])
    world.drain(ingest)
    assert [row["seq"] for row in world.records("telemetry")] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_batch_that_is_put_back_says_so_and_counts_one_row() -> None:
    entry = Entry("clicks", CLICKS.version, "device-1", 4, 9, "device", "", device_line(), SEALED_AT_MS)
    batch = put_back(entry, [CLICKS]).batch
    assert batch is not None
    header, _ = parse(batch)
    assert (header.epoch, header.first_seq, header.span, header.rows) == (4, 9, 1, 1)
    assert Flag(header.flags) is Flag.REPLAYED


def test_without_the_version_that_refused_it_a_row_is_not_guessed_at() -> None:
    (text,) = texts(pa.Table.from_pylist(clicks([3]), schema=wire_schema(CLICKS)), CLICKS)
    entry = Entry("clicks", "0.1.0", "device-1", 1, 3, "lake", "x", text, SEALED_AT_MS)
    answer = put_back(entry, [CLICKS])
    assert answer.batch is None
    assert "0.1.0 is no longer published" in answer.still
