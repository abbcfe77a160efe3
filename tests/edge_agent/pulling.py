"""What tests of pulls share: requests, both profiles' selections, and a world whose lake knows the pulled contracts."""

import json
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from contracts import pulls
from contracts.contract import Contract
from contracts.edge_rules import Condition
from contracts.offshoots import pulled_of
from contracts.pulls import PullRequest
from edge_agent.agent import Agent
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.plan import Plan
from edge_agent.core.profile import Profile
from edge_agent.core.spool.retention import Retention
from edge_agent.core.uplink.link import PullArrived
from edge_agent.lite.filtering import LiteFilter
from edge_agent.lite.lists import LISTS
from edge_agent.report import Report
from tests.edge_agent.plant import CONTRACTS, Json, Lake, contract, reading
from tests.edge_agent.simulated import DEVICE, MODEL, World, lines_with_faults, plan_of

PROFILES: Final[dict[str, Profile]] = {"full": ARRAYS, "lite": LISTS}
PULLED: Final = pulled_of(CONTRACTS["telemetry"])
ANSWERS: Final = contract("pulls")
ALL: Final[dict[str, Contract]] = {**CONTRACTS, PULLED.id: PULLED, ANSWERS.id: ANSWERS}
FIRST_US: Final = 1_767_225_600_000_000  # of plant.reading(0)
STEP_US: Final = 250_000  # from one reading to the next
NOW_MS: Final = 1_800_000_000_000
SERVE_S: Final = 2_000.0
ID: Final = "00c0ffee00c0ffee"


def request(first: int = 0, end: int = 10**9, when: Condition | None = None, **changes: Any) -> PullRequest:
    """Return a request for the readings with these numbers."""
    asked = PullRequest(
        ID, "telemetry", FIRST_US + first * STEP_US, FIRST_US + end * STEP_US, NOW_MS, NOW_MS + 86_400_000, when
    )
    return replace(asked, **changes)


def pullable(plan: Plan, profile: Profile = ARRAYS) -> Plan:
    """Return a plan of a profile whose telemetry can be pulled."""
    stream = replace(plan.streams[0], pulled=PULLED, stores=True)
    if profile is LISTS:
        stream = replace(stream, filter=LiteFilter(MODEL, lambda rows: [row[0] for row in rows]))
    return replace(plan, streams=(stream, *plan.streams[1:]), pulls=ANSWERS, profile=profile)


class PullWorld(World):
    """A world in which a request waits at the broker, which forgets nothing but what was taken back."""

    def __init__(self, seed: int, lines: list[bytes], events_per_s: float = 0.0) -> None:
        super().__init__(seed, lines, events_per_s)
        self.lake = Lake(DEVICE, ALL)
        self.plan = pullable(plan_of(0))
        self.retention = Retention(age_ms=10**12, size_bytes=10**12)
        self.requests: list[PullRequest] = []
        self.stores = True

    def start(self, *, followed: bool = False) -> Agent:
        agent = super().start(followed=followed)
        agent.answer_pulls(stores=self.stores)
        return agent

    def connect(self, epoch: int) -> None:
        super().connect(epoch)
        if self._up:
            self._tell(self.requests)

    def ask(self, *requests: PullRequest) -> None:
        """Publish requests to whoever is connected now, and later."""
        self.requests += requests
        if self._up:
            self._tell(requests)

    def _tell(self, requests: Iterable[PullRequest]) -> None:
        for asked in requests:
            self._later(partial(PullArrived, self.link, asked.id, pulls.encode(asked)), 0.3)

    def serve(self, answers: int) -> Report:
        """Run an agent that has no end until the lake has so many answers, and everything else."""
        agent, until_s = self.start(followed=True), self.now_s + SERVE_S

        def on_status(report: Report) -> None:
            assert self.now_s < until_s, f"{len(self.answers())} answers: {report}"
            if len(self.answers()) >= answers and not report.pending_batches and not report.waiting_segments:
                agent.stop()

        self.on_status = on_status
        report = agent.run()
        self.on_status = lambda _report: None
        return report

    def pulled(self) -> list[Json]:
        """Return the pulled rows that the lake has."""
        return self.lake.rows(PULLED.id)

    def answers(self) -> list[Json]:
        """Return the answers that the lake has."""
        return self.lake.rows(ANSWERS.id)


def whole_lines(events: int, **changes: Callable[[int], Any]) -> list[bytes]:
    """Return valid readings with other values in some fields."""
    return [json.dumps(reading(seq, **{n: of(seq) for n, of in changes.items()})).encode() for seq in range(events)]


def some_lines(seed: int, events: int) -> list[bytes]:
    """Return readings with faults, as the simulation has them."""
    return lines_with_faults(random.Random(seed), events)
