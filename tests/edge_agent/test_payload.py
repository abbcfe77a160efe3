"""Payloads: what goes in comes out, on the device and in the lake, in either codec, with and without a dictionary."""

import subprocess
import sys
from array import array
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import microbatch
from contracts.errors import BatchFormatError
from contracts.microbatch import BATCH_BYTES_MAX, RAW_BYTES_MAX, Codec
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.codec import payload as payloads
from edge_agent.core.codec.payload import PayloadDecoder, PayloadEncoder, Purpose
from edge_agent.core.codec.sealing import Sealer
from edge_agent.core.events import Reader
from flink_jobs.triggers.preselect.decoding import Batch, Decoder
from lakehouse.decode import Arrived, decode
from tests.edge_agent.plant import CONTRACTS, ROOT, lines_of, reading, rows_of
from tests.edge_agent.rows_of_everything import EVERYTHING, ROWS, SEQS, columns_of, same, seqs_of


@settings(deadline=None, max_examples=100)
@given(ROWS, SEQS, st.sampled_from(Purpose), st.booleans())
def test_the_device_decodes_what_it_encoded(
    rows: list[tuple[Any, ...]], numbers: tuple[int, int], purpose: Purpose, arrays: bool
) -> None:
    seqs, columns = seqs_of(*numbers, len(rows)), columns_of(rows, "numpy" if arrays else "array")
    payload = PayloadEncoder(EVERYTHING).encode(np.array(seqs, dtype=np.int64), columns, purpose)
    assert payload.codec == (Codec.PACKED_ZSTD if purpose is Purpose.WIRE else Codec.ARROW_ZSTD)
    decoder = PayloadDecoder(EVERYTHING, arrays=arrays)
    found = decoder.decode(payload.data, len(rows), payload.raw_bytes, payload.codec)
    assert same(found.seqs, seqs)
    assert list(found.columns) == list(columns)
    assert [name for name in columns if not same(found.columns[name], columns[name])] == []
    assert [type(found.columns[name]) for name in columns] == [type(columns[name]) for name in columns]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(ROWS, st.sampled_from(Purpose)), min_size=1, max_size=5))
def test_the_lake_decodes_batches_of_both_codecs_in_their_order(batches: list[tuple[list[Any], Purpose]]) -> None:
    encoder = PayloadEncoder(EVERYTHING)
    arrived, expected, first = [], [], 0
    for at, (rows, purpose) in enumerate(batches):
        seqs = seqs_of(first, 3, len(rows))
        payload = encoder.encode(seqs, columns_of(rows), purpose)
        header = microbatch.Header(
            1, 1, first, 3 * len(rows) + 1, len(rows), payload.raw_bytes, at, codec=payload.codec
        )  # fmt: skip
        data = microbatch.seal(header, payload.data)
        arrived.append(Arrived("device", f"t/0/{at}", *microbatch.parse(data), data))
        expected += [(seq, *row) for seq, row in zip(seqs, rows, strict=True)]
        first += 3 * len(rows) + 1
    decoded, refused = decode(arrived, EVERYTHING, {})
    assert refused == ()
    assert decoded.batches == tuple(arrived)
    assert same([tuple(row.values()) for row in decoded.rows.to_pylist()], expected)
    assert decoded.batch_of_row.tolist() == [at for at, (rows, _) in enumerate(batches) for _ in rows]


def test_a_batch_without_rows_costs_next_to_nothing_and_has_no_rows() -> None:
    payload = PayloadEncoder(CONTRACTS["ledger"]).encode([], {})
    assert len(payload.data) < 8
    found = PayloadDecoder(CONTRACTS["ledger"]).decode(payload.data, 0, payload.raw_bytes, payload.codec)
    assert len(found.seqs) == 0
    assert {len(column) for column in found.columns.values()} == {0}


@pytest.mark.parametrize("purpose", Purpose)
def test_a_required_field_without_a_value_is_refused_here_not_in_the_lake(purpose: Purpose) -> None:
    with pytest.raises(BatchFormatError, match="column customer_id: expected a value in every row, found 1 null"):
        PayloadEncoder(CONTRACTS["purchases"]).encode(np.zeros(1, dtype=np.int64), {}, purpose)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_payload_that_is_not_what_is_said_of_it_is_refused(purpose: Purpose) -> None:
    contract = CONTRACTS["purchases"]
    columns = {"customer_id": ["张"] * 9, "occurred_at": range(9), "number_of_cds": range(9), "dollar_value": [1.5] * 9}
    payload = PayloadEncoder(contract).encode(range(9), columns, purpose)
    data, rows, raw_bytes, codec = payload.data, 9, payload.raw_bytes, payload.codec
    other = Codec.ARROW_ZSTD if codec is Codec.PACKED_ZSTD else Codec.PACKED_ZSTD
    decoder = PayloadDecoder(contract)
    assert decoder.decode(data, rows, raw_bytes, codec).columns["customer_id"] == ["张"] * 9
    for wrong in (
        (data, rows + 1, raw_bytes, codec),
        (data, rows, raw_bytes + 1, codec),
        (data, rows, raw_bytes - 1, codec),
        (data, rows, RAW_BYTES_MAX + 1, codec),
        (data, rows, raw_bytes, other),
        (data, rows, raw_bytes, 9),
        (data[:-1], rows, raw_bytes, codec),
        (data + data, rows, raw_bytes, codec),
        (b"", rows, raw_bytes, codec),
        (b"", 0, 0, codec),
    ):
        with pytest.raises(BatchFormatError):
            decoder.decode(*wrong)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("content_size", [False, True])
def test_a_bomb_is_not_inflated_whatever_its_frame_claims(codec: Codec, content_size: bool) -> None:
    form = zstandard.FORMAT_ZSTD1_MAGICLESS if codec is Codec.PACKED_ZSTD else zstandard.FORMAT_ZSTD1
    parameters = zstandard.ZstdCompressionParameters(format=form, write_content_size=content_size)
    bomb = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(2 * RAW_BYTES_MAX))
    header = microbatch.Header(1, 1, 0, 1, 1, 1_000, 1, codec=codec)
    with pytest.raises(BatchFormatError):
        PayloadDecoder(CONTRACTS["clicks"]).decode(bomb, header.rows, header.raw_bytes, header.codec)
    with pytest.raises(BatchFormatError):
        Decoder(CONTRACTS["clicks"], {}).decode([Batch("device", header, bomb)])
    _, refused = decode([Arrived("device", "t/0/0", header, memoryview(bomb), bomb)], CONTRACTS["clicks"], {})
    assert [letter.reason for letter in refused] == ["bad_payload"]


def test_a_frame_that_claims_more_than_there_is_memory_is_refused() -> None:
    # Single segment, content size in 8 bytes: 2**62; then one empty last block.
    frame = bytes([0b1110_0000, *(2**62).to_bytes(8, "little"), 1, 0, 0])
    header = microbatch.Header(1, 1, 0, 1, 1, 1_000, 1, codec=Codec.PACKED_ZSTD)
    with pytest.raises(BatchFormatError, match="claims"):
        PayloadDecoder(CONTRACTS["clicks"]).decode(frame, 1, 1_000, Codec.PACKED_ZSTD)
    with pytest.raises(BatchFormatError, match="not of 1000 bytes"):
        Decoder(CONTRACTS["clicks"], {}).decode([Batch("device", header, frame)])
    _, refused = decode([Arrived("device", "t/0/0", header, memoryview(frame), frame)], CONTRACTS["clicks"], {})
    assert [letter.reason for letter in refused] == ["bad_payload"]


def test_a_trained_dictionary_makes_small_batches_smaller_and_is_named() -> None:
    contract = CONTRACTS["telemetry"]
    lines = lines_of([reading(seq) for seq in range(1_500)])
    encoder = PayloadEncoder(contract)
    events = Reader(contract, ARRAYS).read(0, lines).events
    samples: list[bytes | bytearray | memoryview] = []
    for first in range(0, 1_500, 10):
        part = slice(first, first + 10)
        samples.append(encoder.packed(events.seqs[part], {n: c[part] for n, c in events.columns.items()}) or b"")
    trained = zstandard.train_dictionary(4_096, samples).as_bytes()
    plain, small = Sealer(contract, 7), Sealer(contract, 7, trained)
    columns = Reader(contract, ARRAYS).read(0, lines[:10]).events.columns
    (one,), (other,) = (sealer.seal(0, 10, range(10), columns, 1) for sealer in (plain, small))
    header, payload = microbatch.parse(other.data)
    assert header.dictionary_id == zstandard.ZstdCompressionDict(trained).dict_id() >= 32_768
    assert len(other.data) < 0.9 * len(one.data)
    arrived = Arrived("device", "t/0/0", header, payload, other.data)
    decoded, refused = decode([arrived], contract, {header.dictionary_id: zstandard.ZstdCompressionDict(trained)})
    assert refused == ()
    assert decoded.rows.to_pylist() == rows_of(contract, one.data)
    found = PayloadDecoder(contract, trained).decode(bytes(payload), 10, header.raw_bytes, header.codec)
    assert found.seqs.tolist() == list(range(10))  # type: ignore[union-attr]
    assert all(same(found.columns[name], columns[name]) for name in columns)


def test_what_was_made_for_a_dictionary_goes_when_the_dictionary_does() -> None:
    columns: dict[str, Any] = {key: [""] for key in ("stream", "rule", "reason")} | {"fate": ["kept"]}
    columns |= {key: [1] for key in ("stream_epoch", "first_seq", "span", "count")}
    seqs = array("q", [0])
    words = [bytes([number % 7, number % 11, number % 13] * 20) for number in range(200)]
    one, other = (zstandard.train_dictionary(2_000, words, dict_id=number).as_bytes() for number in (40_001, 40_002))
    for dictionary in (one, other, b""):
        encoded = PayloadEncoder(CONTRACTS["ledger"], dictionary).encode(seqs, columns)
        decoder = PayloadDecoder(CONTRACTS["ledger"], dictionary)
        assert len(decoder.decode(encoded.data, 1, encoded.raw_bytes, encoded.codec).seqs) == 1
    payloads.forget_all_but([one])
    kept = {key[1] for key in payloads._COMPRESSORS} | {key[0] for key in payloads._DECOMPRESSORS}
    assert one in kept
    assert other not in kept
    again = PayloadEncoder(CONTRACTS["ledger"], other).encode(seqs, columns)
    assert again.dictionary_id == 40_002


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


def test_a_device_without_numpy_encodes_and_decodes() -> None:
    program = """
import sys
for name in ("numpy", "pyarrow", "arro3", "pandas"):
    sys.modules[name] = None  # importing it fails
from array import array
from contracts.contract import Contract, Field, FieldType
from edge_agent.core.codec.payload import PayloadDecoder, PayloadEncoder, Purpose
fields = tuple(Field(n, f"f{n}", kind, required=n % 2 == 0) for n, kind in enumerate(list(FieldType) * 2))
contract = Contract("c", "1.0.0", "", "", "", "c", "n", fields, 1)
values = {"string": ["预", "a"], "float": [0.5, 2.0], "double": [0.1, 1e300], "boolean": [True, False]}
columns = {f.name: values.get(f.type.value, [1, -2]) for f in fields}
columns |= {f.name: [columns[f.name][0], None] for f in fields if not f.required}
for purpose in Purpose:
    sent = PayloadEncoder(contract).encode(array("q", [4, 9]), columns, purpose)
    found = PayloadDecoder(contract, arrays=False).decode(sent.data, 2, sent.raw_bytes, sent.codec)
    assert found.seqs == array("q", [4, 9])
    assert {name: list(column) for name, column in found.columns.items()} == columns
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
