"""The HTTP interface without a socket, beside other implementations as judges."""

import gzip
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.sources.http_head import HEAD_BYTES_MAX, HttpRefusal, parse_head, parse_key
from edge_agent.core.sources.http_session import BODY_BYTES_MAX, Access, HttpSession
from edge_agent.core.sources.offers import Decided, Outcome, Settled, Wish
from edge_agent.core.sources.session import OFFER_EVENTS_MAX, Ask, Close, Offer, Reply, Step

TOKEN = b"0123456789abcdef"
HOST = "127.0.0.1:8640"
ACCESS = Access(TOKEN, frozenset({HOST, "localhost:8640"}), frozenset({"clicks"}))
Headers = dict[str, str | None]


def session(reserve: Callable[[int], bool] = lambda _: True) -> HttpSession:
    return HttpSession(ACCESS, reserve)


def request(
    body: bytes = b"", headers: Headers | None = None, target: str = "/v1/events/clicks", method: str = "POST"
) -> bytes:
    """Return a good request with these headers changed, or gone where they are None."""
    fields: Headers = {
        "Host": HOST,
        "Authorization": f"Bearer {TOKEN.decode()}",
        "Content-Type": "application/x-ndjson",
        "Content-Length": str(len(body)),
    }
    fields |= headers or {}
    lines = [
        f"{method} {target} HTTP/1.1",
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(steps: list[Step]) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
    """Read replies with another library."""
    client = h11.Connection(h11.CLIENT)
    found = []
    for step in steps:
        if not isinstance(step, Reply):
            continue
        client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(step.data)
        response = client.next_event()
        assert isinstance(response, h11.Response)
        data = client.next_event()
        assert isinstance(data, h11.Data)
        assert isinstance(client.next_event(), h11.EndOfMessage)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        found.append((response.status_code, headers, json.loads(bytes(data.data))))
        client = h11.Connection(h11.CLIENT)
    return found


def refused(data: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return the one answer of a connection that ends with it."""
    talk = session()
    steps = talk.receive(data)
    assert isinstance(steps[-1], Close)
    assert not talk.wants_data
    (answer,) = answers(steps)
    assert answer[1]["connection"] == "close"
    assert set(answer[2]) == {"error", "message", "next"}
    assert "\n" not in answer[2]["message"]
    return answer


TAKEN = Settled(Outcome.TAKEN, accepted=2, duplicate=1, next_number=5)


@pytest.mark.parametrize(
    ("content_type", "body", "lines"),
    [
        ("application/x-ndjson", b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        ("application/jsonl; charset=utf-8", b'{"a":1}\n\n{"a":2}', [b'{"a":1}', b"", b'{"a":2}']),
        ("application/x-ndjson", b"", []),
        ("application/json", b'[ {"a": [1,\n 2]},\t{"b":"]"} ]', [b'{"a": [1,\n 2]}', b'{"b":"]"}']),
        ("application/json", b"[]", []),
        ("application/json", b' {"a":1}', [b' {"a":1}']),
        ("Application/JSON", '[{"名":"设备"}]'.encode(), ['{"名":"设备"}'.encode()]),
    ],
)
def test_bodies_become_events(content_type: str, body: bytes, lines: list[bytes]) -> None:
    for sent, encoding in ((body, None), (gzip.compress(body, mtime=0), "gzip")):
        talk = session()
        (offer,) = talk.receive(request(sent, {"Content-Type": content_type, "Content-Encoding": encoding}))
        assert isinstance(offer, Offer)
        assert list(offer.lines) == lines
        assert (offer.contract, offer.producer, offer.first_number) == ("clicks", None, None)
        assert not talk.wants_data
        ((status, headers, answer),) = answers(talk.settled(TAKEN))
        assert (status, headers["connection"]) == (200, "keep-alive")
        assert answer == {"accepted": 2, "duplicate": 1, "next": 5}
        assert talk.wants_data


@given(st.integers(1, 200), st.integers(1, 3))
def test_requests_are_read_whatever_the_blocks(block: int, times: int) -> None:
    talk, found = session(), 0
    data = request(b'{"a":1}\n' * 3, {"Idempotency-Key": '"app/7"'}) * times
    for at in range(0, len(data), block):
        todo = talk.receive(data[at : at + block])
        while todo:
            step = todo.pop(0)
            if isinstance(step, Offer):
                found += 1
                assert (step.lines, step.producer, step.first_number) == ((b'{"a":1}',) * 3, "app", 7)
                todo += talk.settled(TAKEN)
    assert found == times


BAD_REQUESTS: list[tuple[int, bytes]] = [
    (400, b"\r\n\r\n"),
    (400, b"hello\r\n\r\n"),
    (400, request().replace(b"\r\n", b"\n", 1) + b"\r\n\r\n"),
    (400, request(headers={"X-Bad Name": "1"})),
    (400, request(headers={"X-Folded": "1\r\n more"})),
    (400, request(headers={"X-Null": "a\0b"})),
    (400, request(headers={"Content-Length": "+3"})),
    (400, request(headers={"content-length ": "3"})),
    (400, request(headers={"Host": f"{HOST}\r\nHost: evil.example"})),
    (400, request(headers={"Idempotency-Key": "app"})),
    (400, request(headers={"Idempotency-Key": "app/-1"})),
    (400, request(headers={"Idempotency-Key": "/1"})),
    (400, request(headers={"Idempotency-Key": "app/9007199254740992"})),
    (400, request(b"[1,", {"Content-Type": "application/json"})),
    (400, request(b"", {"Content-Type": "application/json"})),
    (400, request(b"\xff\xff", {"Content-Type": "application/json"})),
    (400, request(b"[" * 5_000, {"Content-Type": "application/json"})),
    (400, request(b"no gzip", {"Content-Encoding": "gzip"})),
    (400, request(gzip.compress(b"{}\n", mtime=0)[:-4], {"Content-Encoding": "gzip"})),
    (400, request(gzip.compress(b"{}\n", mtime=0) * 2, {"Content-Encoding": "gzip"})),
    (401, request(headers={"Authorization": None})),
    (401, request(headers={"Authorization": "Bearer "})),
    (401, request(headers={"Authorization": f"Bearer {TOKEN.decode()}0"})),
    (401, request(headers={"Authorization": f"Basic {TOKEN.decode()}"})),
    (401, request(headers={"Authorization": "Bearer 设备"})),
    (404, request(target="/v1/events/")),
    (404, request(target="/v1/events/clicks?x=1")),
    (404, request(target="/v1/events/nope")),
    (404, request(target="/")),
    (405, request(method="GET")),
    (411, request(headers={"Content-Length": None})),
    (411, request(headers={"Transfer-Encoding": "chunked"})),
    (413, request(headers={"Content-Length": str(BODY_BYTES_MAX + 1)})),
    (413, request(b"\n" * (OFFER_EVENTS_MAX + 1))),
    (413, request(gzip.compress(b"x" * (BODY_BYTES_MAX + 1), mtime=0), {"Content-Encoding": "gzip"})),
    (415, request(headers={"Content-Type": "text/plain"})),
    (415, request(headers={"Content-Type": None})),
    (415, request(headers={"Content-Encoding": "br"})),
    (417, request(headers={"Expect": "a miracle"})),
    (421, request(headers={"Host": "evil.example:8640"})),
    (421, request(headers={"Host": "127.0.0.1"})),
    (421, request(headers={"Host": None})),
    (431, b"POST / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES_MAX),
]


@pytest.mark.parametrize(("status", "data"), BAD_REQUESTS)
def test_a_request_that_is_not_one_gets_a_clear_answer_and_the_connection_ends(status: int, data: bytes) -> None:
    found, headers, _ = refused(data)
    assert found == status
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("allow" in headers) == (status == 405)


def test_who_may_not_speak_learns_nothing_of_what_is_there() -> None:
    assert refused(request(target="/v1/events/nope", headers={"Authorization": None}))[0] == 401


@pytest.mark.parametrize(
    ("settled", "status"),
    [
        (Settled(Outcome.REFUSED, next_number=3, code="number_gap", reason="expected 3"), 409),
        (Settled(Outcome.REFUSED, next_number=3, code="number_forgotten", reason="expected 3"), 409),
        (Settled(Outcome.REFUSED, code="something_else", reason="no"), 400),
        (Settled(Outcome.BUSY, code="busy", reason="full"), 503),
    ],
)
def test_what_the_agent_refuses_is_passed_on_and_the_connection_stays(settled: Settled, status: int) -> None:
    talk = session()
    talk.receive(request(b"{}\n", {"Idempotency-Key": "app/9"}))
    ((found, headers, answer),) = answers(talk.settled(settled))
    assert (found, answer["error"], answer["next"]) == (status, settled.code, settled.next_number)
    assert ("retry-after" in headers) == (status == 503)
    assert talk.wants_data


def test_where_there_is_no_room_the_client_is_told_when_to_come_again() -> None:
    asked: list[int] = []

    def refusing(size: int) -> bool:
        asked.append(size)
        return False

    talk = session(refusing)
    ((status, headers, _),) = answers(talk.receive(request(b"{}\n")))
    assert (status, headers["retry-after"], asked) == (429, "1", [3])
    packed = session(refusing)
    packed.receive(request(gzip.compress(b"{}\n", mtime=0), {"Content-Encoding": "GZIP"}))
    assert asked[-1] == BODY_BYTES_MAX


def test_a_client_that_waits_for_leave_gets_it_once_the_head_is_good() -> None:
    talk = session()
    data = request(b"{}\n", {"Expect": "100-continue"})
    head, body = data[:-3], data[-3:]
    (leave,) = talk.receive(head)
    assert leave == Reply(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert isinstance(talk.receive(body)[0], Offer)


def test_time_is_given_anew_for_each_part_of_a_request() -> None:
    talk = session()
    seen = [(talk.phase, talk.patience_s)]
    data = request(b"{}\n")
    for part in (data[:10], data[10:-2], data[-2:]):
        talk.receive(part)
        seen.append((talk.phase, talk.patience_s))
    phases, patience = zip(*seen, strict=True)
    assert list(phases) == sorted(set(phases))
    assert list(patience) == [30.0, 10.0, 30.0, 30.0]


@pytest.mark.parametrize(("sent", "status"), [(0, None), (10, 408), (-2, 408), (None, 503)])
def test_who_takes_too_long_is_told_so(sent: int | None, status: int | None) -> None:
    talk = session()
    data = request(b"{}\n")
    talk.receive(data[:sent]) if sent != 0 else None
    steps = talk.refuse("timeout", "expected the rest sooner")
    assert isinstance(steps[-1], Close)
    assert [found for found, _, _ in answers(steps)] == ([] if status is None else [status])
    assert talk.settled(TAKEN) == []


def test_a_client_that_has_said_all_is_still_answered() -> None:
    talk = session()
    talk.receive(request(b"{}\n"))
    assert talk.ended() == []
    steps = talk.settled(TAKEN)
    assert [status for status, _, _ in answers(steps)] == [200]
    assert steps[-1] == Close()


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_.!#$%&'*+^`|~", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=6), st.sampled_from(["close", "keep-alive", "Close, x", None]))
def test_heads_are_read_as_another_library_reads_them(fields: list[tuple[str, str]], wish: str | None) -> None:
    names = {"host", "content-length", "transfer-encoding", "connection", "content-type", "content-encoding"}
    names |= {"authorization", "idempotency-key", "expect"}
    sent = [("Host", HOST), *(field for field in fields if field[0].lower() not in names)]
    sent += [("Connection", wish)] if wish is not None else []
    data = b"POST /v1/events/clicks HTTP/1.1\r\n" + b"".join(f"{n}: {v}\r\n".encode() for n, v in sent)
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(data + b"\r\n")
    try:
        event = judge.next_event()
    except h11.RemoteProtocolError:
        with pytest.raises(HttpRefusal):
            parse_head(data[:-2])
        return
    assert isinstance(event, h11.Request)
    head = parse_head(data[:-2])
    expected: dict[str, str] = {}
    for name, value in event.headers:
        key = name.decode().lower()
        expected[key] = f"{expected[key]}, {value.decode()}" if key in expected else value.decode()
    assert head.fields == expected
    assert (head.method, head.target) == (event.method.decode(), event.target.decode())
    judge.next_event()
    assert head.keeps_alive == (judge.their_state is not h11.MUST_CLOSE)


PRINTABLE = st.characters(exclude_categories=("C", "Z")) | st.just(" ")


@given(st.text(PRINTABLE, min_size=1, max_size=64), st.integers(0, 2**53 - 1))
def test_keys_name_any_producer(producer: str, number: int) -> None:
    for text in (f"{quote(producer, safe='')}/{number}", f'"{quote(producer)}/{number}"'):
        key = parse_key(text)
        assert (key.producer, key.first_number) == (producer, number)


@given(st.data())
def test_no_bytes_end_in_anything_but_an_answer(data: st.DataObject) -> None:
    good = data.draw(
        st.sampled_from([
            request(b'{"a":1}\n'),
            request(b'[{"a":1}]', {"Content-Type": "application/json"}),
            request(gzip.compress(b"{}\n" * 9, mtime=0), {"Content-Encoding": "gzip", "Idempotency-Key": '"a%20b/7"'}),
        ])
    )  # fmt: skip
    mutant = bytearray(good)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutant) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                mutant[at] = data.draw(st.integers(0, 255))
            case 1:
                del mutant[at : at + data.draw(st.integers(1, 9))]
            case 2:
                mutant[at:at] = data.draw(st.binary(max_size=5))
            case _:
                mutant[at:at] = mutant[: data.draw(st.integers(0, 40))]
        mutant = mutant or bytearray(b"x")
    talk = session()
    steps = talk.receive(bytes(mutant))
    if any(isinstance(step, Offer) for step in steps):
        steps += talk.settled(TAKEN)
    steps += talk.ended() if talk.wants_data else []
    replies = [step.data for step in steps if isinstance(step, Reply)]
    assert all(reply.startswith(b"HTTP/1.1 ") for reply in replies)


JSON_TYPE: Headers = {"Content-Type": "application/json"}


def test_events_that_wait_in_memory_are_accepted_and_not_called_taken() -> None:
    talk = session()
    talk.receive(request(b"{}\n{}\n"))
    ((status, _, body),) = answers(talk.settled(Settled(Outcome.TAKEN, 1, 0, 9, held=1, held_from=7)))
    assert (status, body) == (202, {"accepted": 1, "duplicate": 0, "next": 9, "held": 1, "held_from": 7})


def test_a_decision_is_passed_on_and_answered() -> None:
    talk = session()
    body = '{"consent":"grant","person":"林 7"}'.encode()
    assert talk.receive(request(body, JSON_TYPE, "/v1/consent")) == [Ask("林 7", Wish.GRANT)]
    ((status, _, told),) = answers(talk.settled(Settled(Outcome.TAKEN, decided=Decided("granted", 3, 0))))
    assert (status, told) == (200, {"consent": "granted", "decision": 3, "waiting": 0, "purged": 0})
    assert talk.wants_data


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", JSON_TYPE, 400),
        (b'{"consent":"forget","person":"p"}', JSON_TYPE, 400),
        (b'{"consent":"grant","person":"p"}', {}, 415),
        (b'{"consent":"grant","person":"p"}', JSON_TYPE | {"Authorization": "Bearer no"}, 401),
    ],
)
def test_a_decision_that_may_not_be_passed_on_is_refused(body: bytes, headers: Headers, status: int) -> None:
    assert refused(request(body, headers, "/v1/consent"))[0] == status
