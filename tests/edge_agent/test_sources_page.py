"""What the page says to apps is what the agent does."""

import json
import re
from pathlib import Path
from typing import Any

from edge_agent.adapters import mqtt_source, stream_server
from edge_agent.core.consent import person_keys, portions, register, waiting
from edge_agent.core.refusal import EVENT_BYTES_MAX
from edge_agent.core.sources import consent_lines, http_session, line_session
from edge_agent.core.sources.admissions import Admissions
from edge_agent.core.sources.line_session import LineSession
from edge_agent.core.sources.offers import Decided, Offered, Wish
from edge_agent.core.sources.producers import PRODUCERS_MAX, Producers
from edge_agent.core.sources.session import OFFER_EVENTS_MAX, Ask, Offer, Reply, Step

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_conversations_of_the_page_go_as_they_are_shown() -> None:
    conversations = re.findall(r"```socket\n(.*?)```", PAGE, re.DOTALL)
    assert len(conversations) == 2
    desk = Admissions(Producers())
    for conversation in conversations:
        talk = LineSession(frozenset({"clicks"}))
        shown: list[Any] = []
        sent = b""
        for line in conversation.splitlines():
            if line.startswith("> "):
                sent += line[2:].encode() + b"\n"
                continue
            if sent:
                shown, sent = answers(talk, talk.receive(sent), desk), b""
            assert json.loads(line[2:]) == shown.pop(0)
        assert shown == []


def answers(talk: LineSession, steps: list[Step], desk: Admissions) -> list[Any]:
    found = []
    while steps:
        step = steps.pop(0)
        if isinstance(step, Reply):
            found.append(json.loads(step.data))
        elif isinstance(step, Offer):
            desk.take(Offered("apps", 0, step.contract, step.lines, step.producer, step.first_number))
            (answer,) = desk.written()
            steps += talk.settled(answer.settled)
    return found


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    limits = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.partition("## Limits")[2], re.MULTILINE))
    mib = 1_048_576
    assert limits["one event"] == f"{EVENT_BYTES_MAX:,} bytes"
    assert limits["connections of a source"] == str(stream_server.CONNECTIONS_MAX)
    connection, source = stream_server.CONNECTION_BYTES_MAX // mib, stream_server.BYTES_MAX // mib
    assert limits["unanswered on a connection"] == f"{stream_server.CONNECTION_EVENTS_MAX:,} events, {connection} MiB"
    assert limits["unanswered in a source"] == f"{stream_server.EVENTS_MAX:,} events, {source} MiB"
    messages = f"{mqtt_source.UNANSWERED_MAX:,}, {mqtt_source.BYTES_MAX // mib} MiB"
    assert limits["unanswered messages of a broker"] == messages
    times = f"{line_session.HELLO_S:.0f}, {http_session.HEAD_S:.0f}, {http_session.BODY_S:.0f} s"
    assert limits["time for a greeting, a request's head, its body"] == times
    assert f"last {PRODUCERS_MAX} producers" in PAGE
    assert f"{http_session.BODY_BYTES_MAX // mib} MiB and {OFFER_EVENTS_MAX:,} events a request" in PAGE


def test_the_page_on_consent_says_what_the_agent_does() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "consent.md").read_text(encoding="utf-8")
    (conversation,) = re.findall(r"```decision\n(.*?)```", page, re.DOTALL)
    asked, answered = (line[2:] for line in conversation.splitlines())
    assert consent_lines.ask_of(asked.encode()) == Ask("p-17", Wish.GRANT)
    assert json.loads(answered) == consent_lines.answer_of(Decided("granted", 1))
    assert f"At most {waiting.EVENTS_MAX:,} events and {waiting.BYTES_MAX // 1_048_576} MiB wait" in page
    assert f"decisions of {register.PERSONS_MAX:,} persons" in page
    for reason in (portions.OVERFLOW, portions.REFUSED, portions.NO_PERSON):
        assert f"`dropped({portions.RULE}, {reason})`" in page
    for name in (register.REGISTER_FILE, f"{person_keys.PREFIX}N{person_keys.SUFFIX}"):
        assert f"`{name}`" in page
