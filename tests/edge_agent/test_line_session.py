"""The line protocol without a socket: whatever the borders of what is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.sources.line_session import HELLO_BYTES_MAX, LineSession
from edge_agent.core.sources.offers import Decided, Outcome, Settled, Wish
from edge_agent.core.sources.session import OFFER_EVENTS_MAX, Ask, Close, Offer, Reply, Step

HELLO = b'{"hello":1,"contract":"clicks","producer":"app"}\n'


def session() -> LineSession:
    return LineSession(frozenset({"clicks", "purchases"}))


def told(steps: list[Step]) -> list[dict[str, Any]]:
    return [json.loads(step.data) for step in steps if isinstance(step, Reply)]


def taken(next_number: int | None) -> Settled:
    return Settled(Outcome.TAKEN, next_number=next_number)


@given(st.lists(st.binary(max_size=6).filter(lambda line: b"\n" not in line), max_size=40), st.integers(1, 30))
def test_events_are_the_lines_whatever_the_blocks(lines: list[bytes], block: int) -> None:
    talk, data = session(), HELLO + b"".join(line + b"\n" for line in lines)
    found: list[bytes] = []
    acked = 0
    for at in range(0, len(data), block):
        todo = talk.receive(data[at : at + block])
        while todo:
            step = todo.pop(0)
            if isinstance(step, Offer):
                assert step.first_number == (len(found) if step.lines else None)
                found += step.lines
                todo += talk.settled(taken(len(found)))
            else:
                assert isinstance(step, Reply)
                acked = json.loads(step.data).get("ack", acked)
    assert found == lines
    assert acked == len(lines)
    assert talk.ended() == [Close()]


def test_a_producer_that_is_known_goes_on_where_it_was() -> None:
    talk = session()
    assert talk.receive(HELLO + b"{}\n") == [Offer("clicks", (), "app", None, 0)]
    assert not talk.wants_data
    welcome, offer = talk.settled(taken(40))
    assert told([welcome]) == [{"welcome": 1, "next": 40}]
    assert offer == Offer("clicks", (b"{}",), "app", 40, 2)
    assert talk.wants_data
    assert told(talk.settled(taken(41))) == [{"ack": 41}]


def test_a_producer_may_say_itself_where_it_begins() -> None:
    talk = session()
    talk.receive(b'{"hello":1,"contract":"clicks","producer":"app","first":7}\n')
    assert told(talk.settled(taken(None))) == [{"welcome": 1, "next": None}]
    assert talk.receive(b"1\n2\n") == [Offer("clicks", (b"1", b"2"), "app", 7, 2)]


def test_a_producer_that_has_said_all_gets_its_last_answers() -> None:
    talk = session()
    talk.receive(b'{"hello":1,"contract":"clicks"}\n{}\n{}')
    assert talk.ended() == []
    assert [type(step) for step in talk.settled(taken(None))] == [Reply, Close]


def test_one_that_goes_before_it_is_greeted_is_still_taken_in() -> None:
    talk = session()
    talk.receive(HELLO + b"{}\n")
    assert talk.ended() == []
    assert [type(step) for step in talk.settled(taken(None))] == [Reply, Offer]
    assert [type(step) for step in talk.settled(taken(1))] == [Reply, Close]


def test_many_lines_at_once_are_cut_into_offers() -> None:
    talk = session()
    steps = talk.receive(b'{"hello":1,"contract":"clicks"}\n' + b"\n" * (2 * OFFER_EVENTS_MAX + 1))
    assert [len(step.lines) for step in steps if isinstance(step, Offer)] == [OFFER_EVENTS_MAX, OFFER_EVENTS_MAX, 1]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"GET / HTTP/1.1", "bad_hello", "first line like"),
        (b'{"hello":2,"contract":"clicks"}', "bad_hello", "hello"),
        (b'{"hello":1,"contract":"clicks","colour":1}', "bad_hello", "colour"),
        (b'{"hello":1,"contract":"nope"}', "unknown_contract", "clicks, purchases"),
        (b'{"hello":1,"contract":"clicks","producer":""}', "bad_hello", "printable"),
        (b'{"hello":1,"contract":"clicks","producer":"a\\n"}', "bad_hello", "printable"),
        (b'{"hello":1,"contract":"clicks","first":3}', "bad_hello", "together with a producer"),
        (b'{"hello":1,"contract":"clicks","producer":"a","first":-1}', "bad_hello", "first"),
        (b'{"hello":1,"contract":"clicks","producer":"a","first":9007199254740992}', "bad_hello", "first"),
        (b"\xff\xfe", "bad_hello", "first line like"),
        (b"[" * 600, "bad_hello", "first line like"),
        (b" " * (HELLO_BYTES_MAX + 1), "bad_hello", "1024 bytes"),
    ],
)
def test_a_bad_greeting_is_answered_with_one_line(line: bytes, code: str, said: str) -> None:
    talk = session()
    steps = talk.receive(line + b"\n")
    assert isinstance(steps[-1], Close)
    (answer,) = told(steps)
    assert answer["error"] == code
    assert said in answer["message"]
    assert not talk.wants_data
    assert talk.receive(b"more") == talk.refuse("timeout", "") == []


def test_an_endless_greeting_is_cut_off() -> None:
    talk = session()
    assert talk.receive(b"x" * HELLO_BYTES_MAX) == []
    assert isinstance(talk.receive(b"x")[-1], Close)


def test_numbers_end_where_json_numbers_do() -> None:
    talk = session()
    talk.receive(b'{"hello":1,"contract":"clicks","producer":"a","first":9007199254740990}\n')
    talk.settled(taken(None))
    assert isinstance(talk.receive(b"1\n")[0], Offer)
    assert told(talk.receive(b"2\n"))[0]["error"] == "bad_number"


def test_answers_to_offers_of_an_ended_connection_say_nothing() -> None:
    talk = session()
    talk.receive(b'{"hello":1,"contract":"clicks"}\n')
    talk.receive(b"1\n")
    talk.receive(b"2\n")
    assert told(talk.settled(Settled(Outcome.BUSY, code="busy", reason="full")))[0]["error"] == "busy"
    assert talk.settled(taken(None)) == []


@given(
    st.lists(
        st.binary(max_size=40) | st.sampled_from([HELLO, b"{}\n", b'{"hello":1,', b'"contract":"clicks"}\n']),
        max_size=12,
    )
)
def test_no_bytes_end_in_anything_but_steps(blocks: list[bytes]) -> None:
    talk = session()
    open_offers = 0
    for block in blocks:
        if talk.wants_data and block:
            open_offers += sum(isinstance(step, Offer) for step in talk.receive(block))
        while open_offers:
            open_offers -= 1
            open_offers += sum(isinstance(step, Offer) for step in talk.settled(taken(3)))
    assert all(isinstance(step, Close) for step in talk.ended())


def held(next_number: int, held_from: int | None, size: int = 0) -> Settled:
    return Settled(Outcome.TAKEN, next_number=next_number, held=size, held_from=held_from)


def test_what_is_only_in_memory_is_not_acknowledged() -> None:
    talk = session()
    talk.receive(HELLO)
    assert told(talk.settled(held(8, 5))) == [{"welcome": 1, "next": 8, "held_from": 5}]
    talk = session()
    talk.receive(HELLO)
    talk.settled(taken(8))
    talk.receive(b"1\n2\n3\n")
    assert told(talk.settled(held(11, 9, 1))) == [{"ack": 9, "held": 11}]
    talk.receive(b"4\n")
    assert told(talk.settled(held(12, 9))) == [{"ack": 9, "held": 12}]
    talk.receive(b"5\n")
    assert told(talk.settled(held(13, None))) == [{"ack": 13}]


def test_without_numbers_nothing_after_a_held_event_is_acknowledged() -> None:
    talk = session()
    talk.receive(b'{"hello":1,"contract":"clicks"}\n1\n')
    assert told(talk.settled(taken(None))) == [{"ack": 1}]
    talk.receive(b"2\n3\n")
    assert told(talk.settled(Settled(Outcome.TAKEN, held=1))) == [{"ack": 1, "held": 3}]
    talk.receive(b"4\n")
    assert told(talk.settled(taken(None))) == [{"ack": 1, "held": 4}]


def test_a_decision_is_asked_and_answered_on_a_connection_of_its_own() -> None:
    talk = session()
    assert talk.receive('{"consent":"refuse","person":"林 7"}\n'.encode()) == [Ask("林 7", Wish.REFUSE)]
    reply, close = talk.settled(Settled(Outcome.TAKEN, decided=Decided("refused", 4, 0, 3)))
    assert told([reply]) == [{"consent": "refused", "decision": 4, "waiting": 0, "purged": 3}]
    assert close == Close()


@pytest.mark.parametrize(
    "line",
    [
        b'{"consent":"forget","person":"p"}',
        b'{"consent":"grant"}',
        b'{"consent":"grant","person":""}',
        b'{"consent":"grant","person":"p","also":1}',
        b'{"consent":"show","person":"' + b"p" * 257 + b'"}',
    ],
)
def test_a_decision_that_cannot_be_understood_is_refused(line: bytes) -> None:
    reply, close = session().receive(line + b"\n")
    assert told([reply])[0]["error"] == "bad_hello"
    assert close == Close()
