"""The micro-batch header: golden vectors made by hand from the documented offsets, and properties."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import microbatch
from contracts.errors import BatchError, BatchFormatError
from contracts.microbatch import BATCH_BYTES_MAX, HEADER_BYTES, RAW_BYTES_MAX, SPAN_MAX, Header

VECTORS: dict[str, list[dict[str, Any]]] = msgspec.json.decode(
    Path(__file__).with_name("microbatch_vectors.json").read_bytes()
)


def vectors(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


@st.composite
def headers(draw: st.DrawFn) -> Header:
    span = draw(st.integers(1, SPAN_MAX))
    return Header(
        fingerprint=draw(st.integers(0, 2**64 - 1)),
        epoch=draw(st.integers(0, 2**32 - 1)),
        first_seq=draw(st.integers(0, microbatch.SEQ_MAX - SPAN_MAX)),
        span=span,
        rows=draw(st.integers(0, span)),
        raw_bytes=draw(st.integers(0, RAW_BYTES_MAX)),
        sealed_at_ms=draw(st.integers(0, microbatch.SEALED_AT_MS_MAX)),
        dictionary_id=draw(st.integers(0, 2**32 - 1)),
        flags=draw(st.integers(0, 2**16 - 1)),
    )


@vectors("good")
def test_golden_header_is_written_byte_for_byte(vector: dict[str, Any]) -> None:
    assert microbatch.seal(Header(**vector["header"]), bytes.fromhex(vector["payload"])).hex() == vector["batch"]


@vectors("good")
def test_golden_header_is_read_field_by_field(vector: dict[str, Any]) -> None:
    header, payload = microbatch.parse(bytes.fromhex(vector["batch"]))
    assert msgspec.structs.asdict(header) == vector["header"]
    assert payload.hex() == vector["payload"]


@vectors("bad")
def test_golden_refusal_has_its_reason(vector: dict[str, Any]) -> None:
    with pytest.raises(BatchError) as refused:
        microbatch.parse(bytes.fromhex(vector["batch"]))
    assert refused.value.reason == vector["reason"]


@given(header=headers(), payload=st.binary(max_size=300))
def test_what_was_sealed_is_parsed(header: Header, payload: bytes) -> None:
    found, view = microbatch.parse(microbatch.seal(header, payload))
    assert (found, bytes(view)) == (header, payload)
    assert found.end_seq - found.first_seq == header.span


@given(header=headers(), payload=st.binary(max_size=60), data=st.data())
def test_any_flipped_bit_is_refused(header: Header, payload: bytes, data: st.DataObject) -> None:
    batch = bytearray(microbatch.seal(header, payload))
    bit = data.draw(st.integers(0, 8 * len(batch) - 1), label="bit")
    batch[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BatchError):
        microbatch.parse(bytes(batch))


@given(header=headers(), payload=st.binary(max_size=60), data=st.data())
def test_any_cut_is_refused(header: Header, payload: bytes, data: st.DataObject) -> None:
    batch = microbatch.seal(header, payload)
    with pytest.raises(BatchError):
        microbatch.parse(batch[: data.draw(st.integers(0, len(batch) - 1), label="kept bytes")])


@given(batch=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"FLMB\x01\x01" + tail))
@example(b"FLMB\x01\x01" + bytes(HEADER_BYTES))
def test_garbage_is_refused_with_a_typed_error(batch: bytes) -> None:
    with pytest.raises(BatchError):
        microbatch.parse(batch)


@given(
    name=st.sampled_from(["fingerprint", "epoch", "first_seq", "span", "rows", "raw_bytes", "sealed_at_ms", "flags"]),
    value=st.sampled_from([-1, 2**64, 2**200]),
)
def test_a_header_that_does_not_fit_is_not_sealed(name: str, value: int) -> None:
    header = microbatch.parse(bytes.fromhex(VECTORS["good"][0]["batch"]))[0]
    with pytest.raises(BatchFormatError):
        microbatch.seal(msgspec.structs.replace(header, **{name: value}), b"")


def test_a_batch_that_is_too_large_is_not_sealed() -> None:
    header = microbatch.parse(bytes.fromhex(VECTORS["good"][0]["batch"]))[0]
    assert len(microbatch.seal(header, bytes(BATCH_BYTES_MAX - HEADER_BYTES))) == BATCH_BYTES_MAX
    with pytest.raises(BatchFormatError, match="seal fewer rows"):
        microbatch.seal(header, bytes(BATCH_BYTES_MAX - HEADER_BYTES + 1))
