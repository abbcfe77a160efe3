"""Keyed state survives its bytes, and bytes of another form are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.decisions import EventId
from flink_jobs.triggers.core import state_codec
from flink_jobs.triggers.core.partials import Mark, Matches, Partial
from flink_jobs.triggers.errors import StateFormatError

UNHURRIED = settings(deadline=None)  # a busy machine is no finding
INTS = st.integers(-(2**63), 2**63 - 1)
MARKS = st.builds(Mark, INTS, st.builds(EventId, st.text(), st.text(), INTS, INTS), st.integers(0, 2**16 - 1))
PARTIALS = st.builds(Partial, INTS, INTS, INTS, st.lists(MARKS, max_size=4).map(tuple))
MATCHES = st.dictionaries(st.text(), PARTIALS, max_size=3)
NOTHING: Matches = {}


@UNHURRIED
@given(matches=MATCHES)
def test_matches_survive_their_bytes(matches: Matches) -> None:
    assert state_codec.decode(state_codec.encode(matches)) == matches


def test_the_first_byte_is_the_version() -> None:
    assert state_codec.encode(NOTHING)[0] == state_codec.VERSION


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no bytes"),
        (b"\x63" + state_codec.encode(NOTHING)[1:], "version 99"),
        (bytes((state_codec.VERSION,)), "expected the form"),
        (bytes((state_codec.VERSION,)) + b"\x01", "expected the form"),
    ],
)
def test_other_bytes_are_refused_with_what_was_found(data: bytes, found: str) -> None:
    with pytest.raises(StateFormatError, match=found):
        state_codec.decode(data)
