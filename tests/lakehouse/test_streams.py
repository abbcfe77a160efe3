"""Streams in columns: the same answers as a dictionary, whatever is folded when, and files that are what they were."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import ranges
from contracts.ranges import RangeSet
from lakehouse import state, streams
from lakehouse.errors import StateError
from lakehouse.streams import StreamKey, Streams, columns_of

KEYS = st.builds(
    StreamKey,
    st.sampled_from(("telemetry", "ledger")),
    st.sampled_from(("a", "b", "设备-7", "b\nledger")),
    st.integers(1, 3),
)
RANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda found: ranges.union((first, first + size) for first, size in found)
)
CHANGES = st.lists(st.tuples(st.dictionaries(KEYS, RANGES, max_size=5), st.booleans()), max_size=8)
CHANGED_MAX = 3  # streams above the columns; with more they become columns


@given(CHANGES)
def test_columns_and_what_is_above_them_answer_as_a_dictionary(
    changes: list[tuple[dict[StreamKey, RangeSet], bool]],
) -> None:
    expected: dict[StreamKey, RangeSet] = {}
    found = Streams()
    for changed, folds in changes:
        expected |= changed
        found.take(changed)
        if folds:
            found = Streams(streams.decode(streams.encode(found.folded()), "x"))
        assert dict(found) == expected
        assert len(found) == len(expected)
        for contract, origin, _ in expected:
            newest = max(key.epoch for key in expected if key[:2] == (contract, origin))
            assert found.newest(contract, origin) == (newest, expected[StreamKey(contract, origin, newest)])
        assert found.newest("telemetry", "nobody") is None
        assert found.get(StreamKey("telemetry", "nobody", 1)) is None


@given(st.dictionaries(KEYS, RANGES, max_size=12), st.dictionaries(KEYS, RANGES, max_size=12))
def test_streams_that_are_folded_answer_as_before(
    below: dict[StreamKey, RangeSet], above: dict[StreamKey, RangeSet]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "CHANGED_MIN", CHANGED_MAX)
        before = Streams(columns_of(below), above)
        found = Streams(before.folded()) if state.must_fold(before) else before
        assert len(found.changed) == (len(above) if len(above) <= CHANGED_MAX else 0)
        assert dict(found) == dict(before) == below | above
        assert len(found) == len(before)
        for key in below | above:
            assert found[key] == before[key]
            assert found.newest(key.contract, key.origin) == before.newest(key.contract, key.origin)
        assert found.newest("telemetry", "nobody") is None


@given(*[st.dictionaries(KEYS, RANGES, max_size=5)] * 4)
def test_of_two_copies_neither_hears_what_the_other_takes_over(
    below: dict[StreamKey, RangeSet],
    above: dict[StreamKey, RangeSet],
    one: dict[StreamKey, RangeSet],
    other: dict[StreamKey, RangeSet],
) -> None:
    first = Streams(columns_of(below), above)
    second = first.copy()
    first.take(one)
    second.take(other)
    for found, expected in ((first, below | above | one), (second, below | above | other)):
        assert dict(found) == expected
        for contract, origin, _ in expected:
            newest = max(key.epoch for key in expected if key[:2] == (contract, origin))
            assert found.newest(contract, origin) == (newest, expected[StreamKey(contract, origin, newest)])


@given(st.dictionaries(KEYS, RANGES, max_size=8), st.dictionaries(KEYS, RANGES, max_size=8), st.integers(1, 9))
def test_how_many_names_are_put_in_order_at_once_changes_nothing(
    below: dict[StreamKey, RangeSet], above: dict[StreamKey, RangeSet], at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "GATHERED_AT_ONCE", at_once)
        assert dict(Streams(Streams(columns_of(below), above).folded())) == below | above


@given(st.dictionaries(KEYS, RANGES, max_size=8), st.dictionaries(KEYS, RANGES, max_size=8))
def test_names_with_one_hash_are_two_streams(
    below: dict[StreamKey, RangeSet], above: dict[StreamKey, RangeSet]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "name_hash", lambda contract, origin: 7)
        found = Streams(columns_of(below), above)
        assert dict(found) == below | above
        assert dict(Streams(found.folded())) == below | above


@settings(max_examples=200)
@given(st.dictionaries(KEYS, RANGES, max_size=4), st.integers(0, 500), st.integers(1, 255))
def test_a_file_that_was_changed_is_refused_or_the_same_file(
    known: dict[StreamKey, RangeSet], at: int, flip: int
) -> None:
    data = bytearray(streams.encode(columns_of(known)))
    data[at % len(data)] ^= flip
    with contextlib.suppress(StateError):
        assert dict(Streams(streams.decode(bytes(data), "the file"))) == known


def test_the_error_names_the_file() -> None:
    with pytest.raises(StateError, match="state file s3://a/b"):
        streams.decode(b"rot", "s3://a/b")
