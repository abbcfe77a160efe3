"""Arrow messages of our own are what two Arrow implementations read and write; hostile ones end in a typed error."""

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import arro3.core
import arro3.io
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import wire
from contracts.contract import FieldType
from contracts.errors import BatchFormatError
from edge_agent.core.codec import record_batch
from edge_agent.core.codec.payload import PayloadEncoder
from tests.edge_agent.plant import CONTRACTS
from tests.edge_agent.rows_of_everything import EVERYTHING, ROWS, SEQS, columns_of, same, seqs_of

GOLDEN = Path(__file__).parent / "golden" / "payloads.json"
COLUMNS = wire.columns(EVERYTHING)
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
ARROW = {
    FieldType.STRING: pa.utf8(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
}
SCHEMA = pa.schema([pa.field(c.name, ARROW[c.type], nullable=not c.required) for c in COLUMNS])
SCHEMA_MESSAGE = SCHEMA.serialize().to_pybytes()
KINDS = ("numpy", "array", "list")


def written(rows: list[tuple[Any, ...]], seqs: Sequence[int], kind: str = "numpy") -> bytes:
    return record_batch.write(COLUMNS, {**columns_of(rows, kind), "seq": seqs}, len(rows))


def judged(message: bytes) -> pa.RecordBatch:
    """Read a message with pyarrow, everything proved."""
    with pa.ipc.open_stream(SCHEMA_MESSAGE + message + END) as stream:
        (batch,) = list(stream)
    batch.validate(full=True)
    return batch


def steps(column: wire.WireColumn, values: list[Any]) -> list[Any]:
    if not column.difference or not values:
        return values
    bits = 32 if column.type is FieldType.INT else 64
    half = 1 << bits - 1
    return [(b - a + half) % (2 * half) - half for a, b in zip([0, *values], values, strict=False)]


def expected(rows: list[tuple[Any, ...]], seqs: list[int]) -> dict[str, list[Any]]:
    return {"seq": seqs, **columns_of(rows, "list")}


@settings(deadline=None, max_examples=40)
@given(ROWS, SEQS)
def test_other_implementations_read_what_we_write(rows: list[tuple[Any, ...]], numbers: tuple[int, int]) -> None:
    seqs = seqs_of(*numbers, len(rows))
    message = written(rows, seqs)
    values = expected(rows, seqs)
    for found in (
        judged(message),
        pa.record_batch(arro3.io.read_ipc_stream(io.BytesIO(SCHEMA_MESSAGE + message + END)).read_next_batch()),
    ):
        assert found.num_rows == len(rows)
        for column in COLUMNS:
            wanted = pa.array(steps(column, values[column.name]), ARROW[column.type])
            assert same(found[column.name].to_pylist(), wanted.to_pylist()), column.name


@settings(deadline=None, max_examples=40)
@given(ROWS, SEQS, st.booleans())
def test_we_read_what_other_implementations_write(
    rows: list[tuple[Any, ...]], numbers: tuple[int, int], arrays: bool
) -> None:
    seqs = seqs_of(*numbers, len(rows))
    ours = judged(written(rows, seqs))
    sink = io.BytesIO()
    arro3.io.write_ipc_stream(arro3.core.RecordBatch.from_arrow(ours), sink, compression=None)
    empty = io.BytesIO()
    reader = arro3.core.RecordBatchReader.from_batches(arro3.core.Schema.from_arrow(SCHEMA), [])
    arro3.io.write_ipc_stream(reader, empty, compression=None)
    theirs = sink.getvalue()[len(empty.getvalue()) - len(END) : -len(END)]
    for message in (ours.serialize().to_pybytes(), theirs):
        found = record_batch.read(message, COLUMNS, len(rows), arrays=arrays)
        values = expected(rows, seqs)
        assert all(same(found[name], float32s(name, values[name])) for name in values)


def float32s(name: str, values: list[Any]) -> list[Any]:
    return [None if v is None else float(np.float32(v)) for v in values] if name.startswith("float") else values


@settings(deadline=None, max_examples=40)
@given(ROWS, SEQS)
def test_the_same_rows_give_the_same_bytes_whatever_holds_them(
    rows: list[tuple[Any, ...]], numbers: tuple[int, int]
) -> None:
    seqs = seqs_of(*numbers, len(rows))
    assert len({written(rows, seqs, kind) for kind in KINDS}) == 1


@settings(deadline=None, max_examples=40)
@given(ROWS, SEQS, st.booleans())
def test_what_was_written_is_read_in_the_kind_that_was_asked_for(
    rows: list[tuple[Any, ...]], numbers: tuple[int, int], arrays: bool
) -> None:
    seqs = seqs_of(*numbers, len(rows))
    found = record_batch.read(written(rows, seqs), COLUMNS, len(rows), arrays=arrays)
    values = expected(rows, seqs)
    assert list(found) == [column.name for column in COLUMNS]
    for column in COLUMNS:
        assert same(found[column.name], float32s(column.name, values[column.name])), column.name
        plain = column.required and column.type is not FieldType.STRING
        assert isinstance(found[column.name], np.ndarray) == (plain and arrays)


def test_a_validity_bitmap_is_there_only_for_nulls() -> None:
    column = wire.columns(CONTRACTS["clicks"])
    names = [c.name for c in column]
    values: dict[str, Any] = {c.name: ["x"] if c.type is FieldType.STRING else [1] for c in column}
    full = record_batch.write(column, values, 1)
    assert len(record_batch.write(column, {**values, "object": [None]}, 1)) == len(full)  # one byte less, eight more
    assert names[0] == "seq"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("int_must_plain", [None]),
        ("int_must_plain", [2**31]),
        ("int_must_plain", ["7"]),
        ("long_may_plain", [2**63]),
        ("string_must_plain", [7]),
        ("string_may_plain", ["\ud800"]),
        ("double_must_plain", [1.0, 2.0]),
        ("timestamptz_must_step", []),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, values: list[Any]) -> None:
    row = tuple("" if f.type is FieldType.STRING else 0 for f in EVERYTHING.fields)
    with pytest.raises(BatchFormatError, match=f"column {name}: expected"):
        record_batch.write(COLUMNS, {**columns_of([row], "list"), "seq": [0], name: values}, 1)


@settings(deadline=None, max_examples=100)
@given(ROWS.filter(bool), st.data())
def test_a_spoiled_message_is_read_or_refused(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    message = bytearray(written(rows, seqs_of(0, 1, len(rows))))
    for _ in range(data.draw(st.integers(1, 4), label="wounds")):
        at = data.draw(st.integers(0, len(message) - 1), label="at")
        message[at] = data.draw(st.integers(0, 255), label="byte")
    cut = data.draw(st.integers(0, len(message)), label="kept") if data.draw(st.booleans(), label="cut") else None
    # Any other error is the failure, and so is what is not as many rows.
    with suppress(BatchFormatError):
        found = record_batch.read(bytes(message[:cut]), COLUMNS, len(rows), arrays=True)
        assert {name: len(values) for name, values in found.items()} == {c.name: len(rows) for c in COLUMNS}


def test_the_bytes_of_a_message_do_not_change() -> None:
    for vector in json.loads(GOLDEN.read_text()):
        contract = CONTRACTS[vector["contract"]]
        columns = wire.columns(contract)
        message = PayloadEncoder(contract).message(vector["seqs"], vector["columns"])
        assert message.hex() == vector["message"], contract.id
        found = record_batch.read(message, columns, len(vector["seqs"]), arrays=False)
        assert {name: list(values) for name, values in found.items()} == {"seq": vector["seqs"], **vector["columns"]}
        # Written by another implementation, with buffers aligned to 64 bytes.
        foreign = bytes.fromhex(vector["foreign_message"])
        assert record_batch.read(foreign, columns, len(vector["seqs"]), arrays=False) == found


@given(ROWS, st.integers(0, 2**40))
def test_numbers_that_follow_one_another_are_written_as_any_others(rows: list[tuple[Any, ...]], first: int) -> None:
    numbers = range(first, first + len(rows))
    assert written(rows, numbers) == written(rows, list(numbers))
