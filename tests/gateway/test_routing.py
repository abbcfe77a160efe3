"""Where a message goes: pure."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts import dead, microbatch, topics
from contracts.microbatch import Flag, Header
from gateway.core.routing import route

GOOD = microbatch.seal(
    Header(fingerprint=1, epoch=1, first_seq=0, span=1, rows=1, raw_bytes=4, sealed_at_ms=5), b"data"
)
UP = topics.up(0, "dev-1")


def test_a_batch_goes_on_unchanged_keyed_by_the_origin_of_its_topic() -> None:
    record = route(UP, GOOD, 9)
    assert (record.topic, record.key, record.value, record.refused) == (topics.BATCHES, b"dev-1", GOOD, None)
    assert record.headers == ((topics.ORIGIN_HEADER, b"dev-1"),)


def test_a_topic_that_names_no_origin_is_refused_with_the_original_bytes() -> None:
    for topic in ("fl/v1/up/0/bad name", "fl/v1/up/x/dev", "fl/v1/down/dev/ack", "fl/v1/up/0/dev/more", ""):
        record = route(topic, GOOD, 9)
        letter = dead.decode(record.value)
        assert (record.topic, record.key, letter.reason, letter.original) == (topics.DEAD, None, "unknown_topic", GOOD)
        assert letter.refused_at_ms == 9


def test_only_the_quarantine_puts_rows_back() -> None:
    header, payload = microbatch.parse(GOOD)
    forged = microbatch.seal(replace(header, flags=Flag.REPLAYED | Flag.BACKLOG), bytes(payload))
    assert route(UP, forged, 9).refused == "forged_replay"


@given(payload=st.binary(max_size=200), topic=st.sampled_from([UP, "fl/v1/up/0/no one"]) | st.text())
def test_every_message_goes_somewhere_and_a_refused_one_keeps_its_bytes(payload: bytes, topic: str) -> None:
    record = route(topic, payload, 9)
    if record.refused is None:
        assert record.value == payload
    else:
        letter = dead.decode(record.value)
        assert (letter.original, letter.reason, letter.detail) == (payload, record.refused, record.detail)


@given(cut=st.integers(0, len(GOOD) - 1))
def test_a_cut_batch_is_refused_by_its_reason(cut: int) -> None:
    assert route(UP, GOOD[:cut], 9).refused in {"truncated_batch", "wrong_checksum"}
