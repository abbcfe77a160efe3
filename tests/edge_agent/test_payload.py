"""Payloads decode, by another Arrow implementation, to what was encoded."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import microbatch, wire
from contracts.contract import Contract, Field, FieldType
from contracts.microbatch import BATCH_BYTES_MAX
from edge_agent.core.events import Reader
from edge_agent.core.payload import PayloadEncoder
from edge_agent.core.sealing import Sealer
from tests.edge_agent.plant import CONTRACTS, decode_payloads, lines_of, reading, rows_of

GOLDEN = Path(__file__).parent / "golden" / "payloads.json"
EVERYTHING = Contract(
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
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: st.text(max_size=20),
    FieldType.INT: st.integers(-(2**31), 2**31 - 1),
    FieldType.LONG: st.integers(-(2**62), 2**62),
    FieldType.TIMESTAMPTZ: st.integers(-(2**62), 2**62),
    FieldType.FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
    FieldType.DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    FieldType.BOOLEAN: st.booleans(),
}


def row_of(field: Field) -> st.SearchStrategy[Any]:
    return VALUES[field.type] if field.required else st.none() | VALUES[field.type]


ROWS = st.lists(st.tuples(*(row_of(field) for field in EVERYTHING.fields)), max_size=12)


def columns_of(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    kinds = {
        FieldType.INT: np.int32,
        FieldType.FLOAT: np.float32,
        FieldType.DOUBLE: np.float64,
        FieldType.BOOLEAN: bool,
    }
    for place, field in enumerate(EVERYTHING.fields):
        values = [row[place] for row in rows]
        plain = field.required and field.type is not FieldType.STRING
        columns[field.name] = np.array(values, dtype=kinds.get(field.type, np.int64)) if plain else values
    return columns


def undo(column: wire.WireColumn, values: list[Any]) -> list[Any]:
    if not column.difference or not values:
        return values
    kind = np.int32 if column.type is FieldType.INT else np.int64
    return list(np.cumsum(np.array(values, dtype=kind), dtype=kind).tolist())


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_payloads_of_many_batches_behind_one_schema_are_the_input(batches: list[list[tuple[Any, ...]]]) -> None:
    encoder = PayloadEncoder(EVERYTHING)
    payloads, expected = [], []
    first = 0
    for rows in batches:
        seqs = np.arange(first, first + 3 * len(rows), 3, dtype=np.int64)
        payload = encoder.encode(seqs, columns_of(rows))
        assert len(zstandard.decompress(payload.data)) == payload.raw_bytes
        payloads.append(payload.data)
        expected.append([(int(seq), *row) for seq, row in zip(seqs, rows, strict=True)])
        first += 3 * len(rows)
    table = decode_payloads(EVERYTHING, payloads)
    found = []
    for batch in table.to_batches():
        columns = [undo(c, v) for c, v in zip(wire.columns(EVERYTHING), batch.to_pydict().values(), strict=True)]
        found.append(list(zip(*columns, strict=True)))
    assert [rows for rows in found if rows] == [rows for rows in expected if rows]
    assert table.schema.names == ["seq", *(f.name for f in EVERYTHING.fields)]


def test_a_batch_without_rows_joins_the_stream() -> None:
    encoder = PayloadEncoder(CONTRACTS["ledger"])
    none = encoder.encode(np.zeros(0, dtype=np.int64), {field.name: [] for field in CONTRACTS["ledger"].fields})
    assert decode_payloads(CONTRACTS["ledger"], [none.data, none.data]).num_rows == 0


def test_a_required_field_without_a_value_is_refused_here_not_in_the_lake() -> None:
    encoder = PayloadEncoder(CONTRACTS["purchases"])
    with pytest.raises(Exception, match=r"null|None|expected"):
        encoder.encode(np.zeros(1, dtype=np.int64), {})


def test_a_trained_dictionary_makes_small_batches_smaller_and_is_named() -> None:
    contract = CONTRACTS["telemetry"]
    lines = lines_of([reading(seq) for seq in range(1_500)])
    encoder = PayloadEncoder(contract)
    events = Reader(contract).read(0, lines).events
    samples: list[bytes | bytearray | memoryview] = []
    for first in range(0, 1_500, 10):
        part = slice(first, first + 10)
        samples.append(encoder.message(events.seqs[part], {n: c[part] for n, c in events.columns.items()}))
    trained = zstandard.train_dictionary(16_384, samples).as_bytes()
    plain, small = Sealer(contract, 7), Sealer(contract, 7, trained)
    seqs = np.arange(10, dtype=np.int64)
    columns = Reader(contract).read(0, lines[:10]).events.columns
    (one,), (other,) = plain.seal(0, 10, seqs, columns, 1), small.seal(0, 10, seqs, columns, 1)
    header, payload = microbatch.parse(other.data)
    assert header.dictionary_id == zstandard.ZstdCompressionDict(trained).dict_id() >= 32_768
    assert len(other.data) < 0.9 * len(one.data)
    assert decode_payloads(contract, [bytes(payload)], trained).equals(
        decode_payloads(contract, [bytes(microbatch.parse(one.data)[1])])
    )


def test_rows_that_do_not_fit_are_split_and_stay_in_order() -> None:
    contract = CONTRACTS["quarantine"]
    rng = np.random.default_rng(5)
    originals = ["".join(map(chr, rng.integers(32, 0x2FFF, 20_000))) for _ in range(9)]
    columns: dict[str, Any] = {
        "contract": ["telemetry"] * 9,
        "refused_version": ["1"] * 9,
        "refused_epoch": np.full(9, 3),
        "refused_seq": np.arange(9),
        "refused_by": ["device"] * 9,
        "rule": ["event.json"] * 9,
        "original": originals,
    }
    batches = Sealer(contract, 3).seal(90, 110, np.arange(95, 104), columns, 1)
    assert len(batches) > 1
    assert all(len(batch.data) <= BATCH_BYTES_MAX for batch in batches)
    assert (batches[0].first_seq, batches[-1].first_seq + batches[-1].span) == (90, 110)
    assert all(a.first_seq + a.span == b.first_seq for a, b in pairwise(batches))
    rows = [row for batch in batches for row in rows_of(contract, batch.data)]
    assert [row["seq"] for row in rows] == list(range(95, 104))
    assert [row["original"] for row in rows] == originals


def test_the_bytes_of_a_payload_do_not_change() -> None:
    golden = json.loads(GOLDEN.read_text())
    for vector in golden:
        contract = CONTRACTS[vector["contract"]]
        message = PayloadEncoder(contract).message(np.array(vector["seqs"], dtype=np.int64), vector["columns"])
        assert message.hex() == vector["message"], contract.id
        behind_schema = zstandard.compress(bytes.fromhex(vector["message"]))
        decoded = decode_payloads(contract, [behind_schema])
        assert decoded.num_rows == len(vector["seqs"])
        for name, values in vector["columns"].items():
            step = next(c.difference for c in wire.columns(contract) if c.name == name)
            found = decoded[name].to_pylist()
            assert (np.cumsum(found).tolist() if step else found) == values
        assert pa.types.is_int64(decoded.schema.field("seq").type)
