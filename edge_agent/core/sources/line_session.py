"""The protocol of the Unix socket: lines of JSON in both directions.

| line of the producer                              | meaning                                                     |
| ------------------------------------------------- | ----------------------------------------------------------- |
| `{"hello":1,"contract":C}`                        | events of C follow; one sent again cannot be recognised     |
| `{"hello":1,"contract":C,"producer":P}`           | numbered events, the first is `next` of the answer, or 0    |
| `{"hello":1,"contract":C,"producer":P,"first":N}` | numbered events, the first is number N                      |
| `{"consent":"grant","person":P}`, or `refuse`     | instead of a greeting: see `core.sources.consent_lines`     |
| any other line, of at most 65,536 bytes           | one event; each has the number after that of the one before |

| line of the agent                        | meaning                                                                   |
| ---------------------------------------- | ------------------------------------------------------------------------- |
| `{"welcome":1,"next":N}`                 | events may follow; below N all of this producer were taken, null: unknown |
| `{"ack":N}`                              | all events below number N are taken: forget them                          |
| `{"ack":N,"held":M}`                     | as before, and all below M were heard: those that are not taken wait in   |
|                                          | memory until their persons have decided, and are lost with it             |
| `{"welcome":1,"next":N,"held_from":H}`   | as above, and from H on some below N were not taken: send these again,    |
|                                          | under `first`, if the agent was started anew since they were held         |
| `{"error":CODE,"message":TEXT,"next":N}` | nothing further is taken on this connection, which ends                   |

Without a producer, numbers count the events of the connection from 0. An acknowledged event is durable, or a rule has
dropped it, or it does not follow its contract and is in quarantine. A connection that ends leaves what was not
acknowledged in doubt: a numbered producer sends it again, from `next` of the following welcome.

A line without its newline at the end of the connection is no event. A producer that may send no further may close its
writing half and read on: it gets the remaining acknowledgements.
"""

from collections import deque
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from contracts.malformed import MALFORMED
from edge_agent.core.sources import consent_lines
from edge_agent.core.sources.line_splitting import LineSplitter
from edge_agent.core.sources.offers import Outcome, Settled
from edge_agent.core.sources.producers import NUMBER_MAX, PRODUCER_CHARS_MAX, is_producer
from edge_agent.core.sources.session import OFFER_EVENTS_MAX, Close, Offer, Reply, Step

HELLO_BYTES_MAX: Final = 1_024  # bytes; a name of 64 characters takes 384 when every one is escaped
HELLO_S: Final = 10.0  # s; a process on the same device that says nothing for so long is stuck


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a producer."""

    hello: Annotated[int, Meta(ge=1, le=1)]
    contract: str
    producer: Annotated[str, Meta(max_length=PRODUCER_CHARS_MAX)] | None = None
    first: Annotated[int, Meta(ge=0, le=NUMBER_MAX)] | None = None


class LineSession:
    """One connection's conversation, see the module's text. Implements `session.Session`."""

    reserves: Final = False

    def __init__(self, contracts: frozenset[str]) -> None:
        self._contracts = contracts
        self._decoder = msgspec.json.Decoder(Hello)
        self._hello: Hello | None = None
        self._early = b""  # bytes that came before events could be taken
        self._open = self._closed = self._ending = False
        self._lines = LineSplitter()
        self._next = 0  # number of the next line
        self._taken = 0  # all numbers below are taken
        self._heard = 0  # all numbers below were heard
        self._asked: deque[int] = deque()  # events in each open offer

    @property
    def wants_data(self) -> bool:
        return not self._closed and (self._hello is None or self._open)

    @property
    def patience_s(self) -> float | None:
        return HELLO_S if self._hello is None else None

    @property
    def phase(self) -> int:
        return 0 if self._hello is None else 1

    def receive(self, data: bytes) -> list[Step]:
        if self._closed:
            return []
        if self._open:
            return self._events(data)
        self._early += data
        return self._greet() if self._hello is None else []

    def ended(self) -> list[Step]:
        self._ending = True
        return self._close() if not self._asked else []

    def settled(self, settled: Settled) -> list[Step]:
        events = self._asked.popleft()
        if self._closed:
            return []
        if settled.outcome is not Outcome.TAKEN:
            return self._fail(settled.code, settled.reason, settled.next_number)
        if settled.decided is not None:
            return [_line(consent_lines.answer_of(settled.decided)), *self._close()]
        if not self._open:
            steps = self._begin(settled.next_number, settled.held_from)
        else:
            steps = [self._acknowledged(events, settled)]
        return steps + (self._close() if self._ending and not self._asked else [])

    def refuse(self, code: str, reason: str) -> list[Step]:
        return [] if self._closed else self._fail(code, reason, None)

    def _acknowledged(self, events: int, settled: Settled) -> Reply:
        assert self._hello is not None
        is_whole = self._taken == self._heard and not settled.held
        self._heard += events
        if self._hello.producer is not None and settled.held_from is not None:
            self._taken = max(self._taken, min(self._heard, settled.held_from))
        elif self._hello.producer is not None or is_whole:
            self._taken = self._heard
        return _line({"ack": self._taken} if self._taken == self._heard else {"ack": self._taken, "held": self._heard})

    def _greet(self) -> list[Step]:
        line, newline, rest = self._early.partition(b"\n")
        if len(line) > HELLO_BYTES_MAX:
            return self._fail("bad_hello", f"expected a first line of at most {HELLO_BYTES_MAX} bytes", None)
        if not newline:
            return []
        if consent_lines.is_request(line):
            return self._ask(line)
        try:
            hello = self._decoder.decode(line)
        except MALFORMED as error:
            expected = 'expected a first line like {"hello":1,"contract":"clicks","producer":"app"}'
            return self._fail("bad_hello", f"{expected}: {error}", None)
        if hello.contract not in self._contracts:
            known = ", ".join(sorted(self._contracts))
            return self._fail("unknown_contract", f"expected one of {known}, found {hello.contract[:64]!r}", None)
        if hello.producer is not None and not is_producer(hello.producer):
            return self._fail("bad_hello", f"producer: expected 1 to {PRODUCER_CHARS_MAX} printable characters", None)
        if hello.producer is None and hello.first is not None:
            return self._fail("bad_hello", "first: expected together with a producer", None)
        self._hello, self._early = hello, rest
        if hello.producer is None:
            return self._begin(0)
        self._asked.append(0)
        return [Offer(hello.contract, (), hello.producer, None, 0)]

    def _ask(self, line: bytes) -> list[Step]:
        try:
            ask = consent_lines.ask_of(line)
        except MALFORMED as error:
            return self._fail("bad_hello", f'expected a line like {{"consent":"grant","person":"p-1"}}: {error}', None)
        self._hello = Hello(1, "")
        self._asked.append(0)
        return [ask]

    def _begin(self, known: int | None, held_from: int | None = None) -> list[Step]:
        """Welcome the producer, then take the events that came with its greeting."""
        assert self._hello is not None
        first = self._hello.first if self._hello.first is not None else known or 0
        self._next = self._taken = self._heard = first
        self._open = True
        early, self._early = self._early, b""
        welcome: dict[str, int | str | None] = {"welcome": 1, "next": known}
        if held_from is not None:
            welcome["held_from"] = held_from
        return [_line(welcome), *(self._events(early) if early else [])]

    def _events(self, data: bytes) -> list[Step]:
        assert self._hello is not None
        lines = self._lines.feed(data)
        steps: list[Step] = []
        numbered = self._hello.producer is not None
        for at in range(0, len(lines), OFFER_EVENTS_MAX):
            part = tuple(lines[at : at + OFFER_EVENTS_MAX])
            if self._next + len(part) > NUMBER_MAX:
                return [*steps, *self._fail("bad_number", f"expected numbers up to {NUMBER_MAX}", None)]
            first = self._next if numbered else None
            steps.append(Offer(self._hello.contract, part, self._hello.producer, first, sum(map(len, part))))
            self._next += len(part)
            self._asked.append(len(part))
        return steps

    def _fail(self, code: str, reason: str, known: int | None) -> list[Step]:
        self._closed = True
        return [_line({"error": code, "message": reason, "next": known}), Close()]

    def _close(self) -> list[Step]:
        if self._closed:
            return []
        self._closed = True
        return [Close()]


def _line(message: dict[str, int | str | None]) -> Reply:
    return Reply(msgspec.json.encode(message) + b"\n")
