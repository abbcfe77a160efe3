"""An app on the device that hands events over and holds on to each until the agent has acknowledged it."""

import json
import random
from collections.abc import Callable
from typing import Final

from edge_agent.core.sources.offers import Offered, Outcome, Settled

CONTRACT: Final = "clicks"
SOURCE: Final = "socket"
OFFER_EVENTS_MAX: Final = 12
PAUSE_S_MAX: Final = 0.6  # s between an answer and the next offer
ANSWER_S_MAX: Final = 6.0  # s after which an offer without an answer is made again


class AppForgottenError(AssertionError):
    """The agent refuses events that it should know how to take: it has forgotten what it acknowledged."""


class App:
    """Implements `ports.PushSource` for one producer. It outlives the agents; answers to it may get lost.

    `offer` puts an offer before the agent, `later` calls something after a random part of so many seconds, `is_lost`
    says whether an answer is lost.
    """

    name = SOURCE
    trouble: str | None = None

    def __init__(
        self,
        events: int,
        rng: random.Random,
        offer: Callable[[Offered], None],
        later: Callable[[Callable[[], None], float], None],
        is_lost: Callable[[], bool],
    ) -> None:
        self.events = events
        self.acknowledged = 0
        self._rng = rng
        self._offer = offer
        self._later = later
        self._is_lost = is_lost
        self._run = 0
        self._ticket = 0

    @property
    def is_done(self) -> bool:
        """Say whether every event is acknowledged."""
        return self.acknowledged == self.events

    def start(self) -> None:
        self._run += 1
        self._next(self._run)

    def settle(self, ticket: int, settled: Settled) -> None:
        if settled.outcome is Outcome.REFUSED:
            raise AppForgottenError(f"acknowledged up to {self.acknowledged}: {settled.code}: {settled.reason}")
        if ticket != self._ticket or self._is_lost():
            return
        if settled.outcome is Outcome.TAKEN:
            assert settled.next_number is not None
            self.acknowledged = max(self.acknowledged, settled.next_number)
        self._next(self._run)

    def close(self) -> None:
        self._run += 1

    def _next(self, run: int) -> None:
        if self.is_done:
            return
        self._ticket += 1
        ticket = self._ticket
        self._later(lambda: self._hand_over(run, ticket), PAUSE_S_MAX)
        self._later(lambda: self._again(run, ticket), PAUSE_S_MAX + ANSWER_S_MAX)

    def _hand_over(self, run: int, ticket: int) -> None:
        if run != self._run or ticket != self._ticket:
            return
        # Sometimes from further back: an app may have been restored from a copy of some moments ago.
        back = self._rng.randint(1, OFFER_EVENTS_MAX) if self._rng.random() < 0.1 else 0
        first = max(0, self.acknowledged - back)
        end = min(self.events, first + self._rng.randint(1, OFFER_EVENTS_MAX))
        lines = tuple(line(number) for number in range(first, end))
        self._offer(Offered(SOURCE, ticket, CONTRACT, lines, "app", first))

    def _again(self, run: int, ticket: int) -> None:
        if run == self._run and ticket == self._ticket:
            self._next(run)


def line(number: int) -> bytes:
    """Return the app's event with this number."""
    event = {
        "user_id": f"客户-{number % 7}",
        "session_id": "s1",
        "event": "open",
        "object": f"{number}",
        "occurred_at": f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}Z",
    }
    return json.dumps(event).encode()
