"""Requests for events: what is written is read, and nothing else is."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts import pulls, topics
from contracts.contract import Checks, Contract, Field, FieldType
from contracts.edge_rules import AllOf, Between, Compare, Condition, ContainsAny, IsNull, Not, OneOf
from contracts.errors import PullError
from contracts.offshoots import FIRST_ID, pulled_of, sampled_of
from contracts.pulls import PullRequest

CONTRACT = Contract(
    "plant", "1.0.0", "Plant", "Tests.", "tests", "lake_a", "field",
    (
        Field(1, "occurred_at", FieldType.TIMESTAMPTZ, True),
        Field(2, "note", FieldType.STRING, checks=Checks(max_length=64)),
        Field(3, "count", FieldType.INT, True),
    ),
    1, event_time_field="occurred_at",
)  # fmt: skip
REQUEST = PullRequest("0123456789abcdef", "plant", 0, 1, 1, 2)
TEXTS = st.text(min_size=1, max_size=20)
LEAVES: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Compare, st.just("count"), st.sampled_from(["eq", "ne", "lt", "ge"]), st.integers(-5, 5)),
    st.builds(OneOf, st.just("note"), st.lists(TEXTS, min_size=1, max_size=4).map(tuple)),
    st.builds(Between, st.just("count"), st.integers(-5, 0), st.integers(0, 5)),
    st.builds(ContainsAny, st.just("note"), st.lists(TEXTS, min_size=1, max_size=3).map(tuple)),
    st.builds(IsNull, st.just("note")),
)
CONDITIONS = LEAVES | st.builds(AllOf, st.lists(LEAVES, min_size=1, max_size=3).map(tuple)) | st.builds(Not, LEAVES)
US = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_998)
REQUESTS = st.builds(
    lambda id_, first, length, asked, valid, when, rows, size, who: PullRequest(
        f"{id_:016x}", "plant", first, min(first + length, 253_402_300_799_999_999), asked, asked + valid,
        when, rows, size, who,
    ),
    st.integers(0, 2**64 - 1), US, st.integers(1, 10**15), st.integers(0, 10**13),
    st.integers(1, pulls.VALID_MS_MAX), st.none() | CONDITIONS, st.integers(1, pulls.ROWS_MAX),
    st.integers(1, pulls.BYTES_MAX), st.text(max_size=64),
)  # fmt: skip


@given(REQUESTS)
def test_what_is_written_is_read(request: PullRequest) -> None:
    assert pulls.decode(pulls.encode(request)) == request
    pulls.check(request, CONTRACT)


@settings(max_examples=300)
@given(REQUESTS, st.data())
def test_other_bytes_end_in_a_request_or_a_typed_error(request: PullRequest, data: st.DataObject) -> None:
    good = bytearray(pulls.encode(request))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = pulls.decode(bytes(good))
    except PullError:
        return
    assert pulls.is_id(found.id)
    assert found.from_us < found.to_us


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "0" * 15}, "16 hexadecimal"),
        ({"id": "../../0123456789"}, "16 hexadecimal"),
        ({"to_us": 0}, "ends after it begins"),
        ({"expires_at_ms": 1}, "valid for up to"),
        ({"expires_at_ms": pulls.VALID_MS_MAX + 2}, "valid for up to"),
        ({"rows_max": 0}, "rows_max"),
        ({"bytes_max": 2**40}, "bytes_max"),
        ({"from_us": -(2**62)}, "from_us"),
        ({"contract": ""}, "contract"),
    ],
)
def test_what_is_out_of_its_limits_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PullError, match=said):
        pulls.decode(msgspec.json.encode(replace(REQUEST, **changes)))


@pytest.mark.parametrize(
    "document", [b"", b"null", b"[]", b"{}", b"\xff", b'{"when":' + b'{"test":"not","of":' * 3_000]
)
def test_rubbish_is_refused(document: bytes) -> None:
    with pytest.raises(PullError):
        pulls.decode(document)


def test_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(PullError, match="unknown field"):
        pulls.decode(msgspec.json.encode(msgspec.structs.asdict(REQUEST) | {"limit": 1}))


def test_a_request_that_is_too_long_is_not_sent() -> None:
    words = tuple(f"{number:0200d}" for number in range(60))
    with pytest.raises(PullError, match="shorter condition"):
        pulls.encode(replace(REQUEST, when=ContainsAny("note", words)))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (Compare("nowhere", "eq", 1), "nowhere"),
        (Compare("count", "eq", "warm"), "whole number"),
        (ContainsAny("count", ("x",)), "string field"),
    ],
)
def test_a_condition_that_the_contract_cannot_follow_is_refused(when: Condition, said: str) -> None:
    with pytest.raises(PullError, match=said):
        pulls.check(replace(REQUEST, when=when), CONTRACT)


def test_a_contract_without_an_event_time_cannot_be_pulled() -> None:
    with pytest.raises(PullError, match="event time"):
        pulls.check(REQUEST, replace(CONTRACT, event_time_field=None))


def test_the_pulled_contract_has_the_fields_of_its_own_and_three_more() -> None:
    pulled = pulled_of(CONTRACT)
    assert pulled.id == "plant_pulled"
    assert pulled.fields[: len(CONTRACT.fields)] == CONTRACT.fields
    assert [(f.id, f.name) for f in pulled.fields[-3:]] == [
        (FIRST_ID, "source_seq"),
        (FIRST_ID + 1, "fate"),
        (FIRST_ID + 2, "pull_id"),
    ]
    assert pulled.table != sampled_of(CONTRACT).table


def test_a_topic_names_one_pull_of_one_device() -> None:
    topic = topics.pull("press-01", REQUEST.id)
    assert topics.pull_of(topic, "press-01") == REQUEST.id
    assert topics.pull_of(topic, "press-02") is None
    assert topics.pull_of(topics.ack("press-01"), "press-01") is None
    assert topics.pull_filter("press-01") == topic.removesuffix(REQUEST.id) + "+"
