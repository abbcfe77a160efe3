"""Acknowledgement documents: merging watermarks is a join, so neither order nor repetition matters."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import ranges, watermark
from contracts.errors import WatermarkError
from contracts.watermark import AckDocument, Watermark

EMPTY = AckDocument("dev")
PARTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4)
MARKS = st.builds(
    Watermark,
    origin=st.just("dev"),
    contract=st.sampled_from(["telemetry", "ledger"]),
    epoch=st.integers(1, 3),
    committed=PARTS.map(ranges.union),
    snapshot_id=st.integers(1, 3),
    committed_at_ms=st.integers(1, 3),
)


def merge(marks: list[Watermark], document: AckDocument = EMPTY) -> AckDocument:
    return reduce(watermark.advance, marks, document)


@given(marks=st.lists(MARKS, max_size=6), data=st.data())
def test_any_order_gives_the_same_document(marks: list[Watermark], data: st.DataObject) -> None:
    assert merge(data.draw(st.permutations(marks))) == merge(marks)


@given(marks=st.lists(MARKS, min_size=1, max_size=6), data=st.data())
def test_a_watermark_twice_is_a_watermark_once(marks: list[Watermark], data: st.DataObject) -> None:
    document = merge(marks)
    assert watermark.advance(document, data.draw(st.sampled_from(marks))) == document


@given(marks=st.lists(MARKS, max_size=6), newer=MARKS)
def test_what_was_acknowledged_stays_so_within_its_epoch(marks: list[Watermark], newer: Watermark) -> None:
    before = {mark.contract: mark for mark in merge(marks).watermarks}
    after = {mark.contract: mark for mark in merge([*marks, newer]).watermarks}
    for contract, mark in before.items():
        assert after[contract].epoch >= mark.epoch
        if after[contract].epoch == mark.epoch:
            assert all(ranges.covers(after[contract].committed, *part) for part in mark.committed)
            assert after[contract].upto >= mark.upto


@given(marks=st.lists(MARKS, min_size=1, max_size=6))
def test_a_document_holds_exactly_what_the_newest_epoch_committed(marks: list[Watermark]) -> None:
    for found in merge(marks).watermarks:
        of_stream = [mark for mark in marks if mark.contract == found.contract]
        newest = [mark for mark in of_stream if mark.epoch == max(mark.epoch for mark in of_stream)]
        assert found.epoch == newest[0].epoch
        assert found.committed == ranges.union(part for mark in newest for part in mark.committed)


@given(marks=st.lists(MARKS, max_size=4))
def test_documents_survive_their_json_form(marks: list[Watermark]) -> None:
    document = merge(marks)
    assert watermark.decode_ack(watermark.encode(document)) == document
    for mark in marks:
        assert watermark.decode_watermark(watermark.encode(mark)) == mark
        assert watermark.key(mark) == f"dev/{mark.contract}".encode()


def test_a_watermark_of_another_origin_is_refused() -> None:
    with pytest.raises(WatermarkError, match="'other'"):
        watermark.advance(EMPTY, Watermark("other", "telemetry", 1, ((0, 1),), 1, 1))
