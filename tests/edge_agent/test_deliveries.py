"""Messages become rounds of offers, and are acknowledged when none of their events has to come again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.sources.deliveries import Message, Numbering, round_of
from edge_agent.core.sources.line_splitting import KEPT_BYTES
from edge_agent.core.sources.offers import Outcome, Settled, busy
from edge_agent.core.sources.producers import is_producer
from edge_agent.core.sources.session import OFFER_EVENTS_MAX

NUMBERING = Numbering("n", None)
BY_START = Numbering("n", "boot")
TAKEN = Settled(Outcome.TAKEN)


def message(handle: int, payload: bytes, topic: str = "halle/7", numbering: Numbering | None = NUMBERING) -> Message:
    return Message(handle, topic, "telemetry", payload, numbering)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=30), st.randoms())
def test_each_event_is_in_one_offer_and_each_producers_events_keep_their_order(
    events: list[tuple[str, int]], random: st.DataObject
) -> None:
    payloads = [json.dumps({"n": number}).encode() for _, number in events]
    messages = [
        message(at, payload, topic) for at, ((topic, _), payload) in enumerate(zip(events, payloads, strict=True))
    ]
    made = round_of(messages)
    for name in "ab":
        numbers = [
            (part.first_number or 0) + at
            for part in made.parts
            if part.producer == name
            for at, _ in enumerate(part.lines)
        ]
        assert numbers == [number for topic, number in events if topic == name]
        lines = [line for part in made.parts if part.producer == name for line in part.lines]
        assert lines == [json.dumps({"n": number}).encode() for number in numbers]
    assert made.handles == list(range(len(events)))


def test_sensors_that_take_turns_are_one_offer_each() -> None:
    made = round_of([message(at, b'{"n":%d}' % (at // 3), f"sensor-{at % 3}") for at in range(300)])
    assert [(part.producer, part.first_number, len(part.lines)) for part in made.parts] == [
        (f"sensor-{number}", 0, 100) for number in range(3)
    ]


def test_a_message_of_many_lines_is_acknowledged_when_all_of_them_are_taken() -> None:
    lines = b"\n".join(b'{"n":%d}' % number for number in (1, 2, 9, 10))
    made = round_of([message(7, lines), message(8, b'{"n":11}')])
    assert [(part.first_number, len(part.lines), part.handles) for part in made.parts] == [(1, 2, {7}), (9, 3, {7, 8})]
    assert made.taken() == []
    made.answers[1] = TAKEN
    assert not made.is_done()
    assert made.taken() == [8]
    made.answers[0] = busy("full")
    assert made.is_done()
    assert made.taken() == [8]
    made.answers[0] = Settled(Outcome.REFUSED, code="x", reason="no")  # it would be refused again: it must not come
    assert made.taken() == [7, 8]


def test_events_without_a_number_are_taken_as_they_come() -> None:
    payloads = [b'{"n":1}', b'{"n":-1}', b'{"m":1}', b"\xff", b"", b'{"n":1.5}', b"[" * 3_000, b'{"n":2}']
    made = round_of([message(at, payload) for at, payload in enumerate(payloads)])
    assert [(part.producer, part.first_number, part.lines) for part in made.parts] == [
        ("halle/7", 1, [payloads[0], payloads[7]]),
        (None, None, payloads[1:7]),
    ]
    plain = round_of([message(0, b"1\n\n2\n", numbering=None), message(1, b"x" * 100_000, numbering=None)])
    assert [part.lines for part in plain.parts] == [[b"1", b"", b"2", b"x" * KEPT_BYTES]]


def test_offers_have_no_more_events_than_a_flush() -> None:
    made = round_of([message(0, b"\n" * (OFFER_EVENTS_MAX + 1), numbering=None)])
    assert [len(part.lines) for part in made.parts] == [OFFER_EVENTS_MAX, 1]


def test_each_start_of_a_sensor_counts_anew() -> None:
    def producers(payload: bytes, topic: str) -> list[str | None]:
        return [part.producer for part in round_of([message(0, payload, topic, BY_START)]).parts]

    assert producers(b'{"n":1,"boot":"x"}\n{"n":1,"boot":17}', "t") == ["t x", "t 17"]
    assert producers(b'{"n":1}', "t") == [None]
    long = [producers(b'{"n":1,"boot":"%d"}' % boot, "设备/" * 40)[0] for boot in (1, 1, 2)]
    assert long[0] == long[1] != long[2]
    assert all(name is not None and is_producer(name) for name in long)
