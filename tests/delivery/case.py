"""Scenarios, and what they find out about each assertion."""

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from tests.delivery.agent import Capability
from tests.delivery.assertions import assertions
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.delivery.site import Site

DEADLINE_S: Final = 45.0  # s; what a sound agent does takes a few, an upstream away for seconds is found in up to 30

FOUND_CHARS_MAX: Final = 300  # characters of what was seen; enough for a line of the table


class Outcome(Enum):
    """What became of an assertion; worse ones later."""

    PASSED = "passed"
    NOT_OFFERED = "not offered"
    NOT_RUN = "not run"
    FAILED = "failed"


class Finding(Struct, frozen=True):
    """What one scenario found out about one assertion; `found` says what was seen when it does not hold."""

    assertion: str
    scenario: str
    outcome: Outcome
    found: str = ""


class CannotGoOnError(AssertionError):
    """A scenario's next step needs what the last one did not bring about."""


class Case:
    """The findings of one scenario with one agent. An assertion that the agent does not offer is never looked at."""

    def __init__(self, scenario: str, named: tuple[str, ...], capabilities: frozenset[Capability]) -> None:
        self._scenario = scenario
        self._named = named
        self._wanted = {name for name in named if capabilities.issuperset(assertions()[name].needs)}
        self._findings: dict[str, Finding] = {}

    def wants(self, assertion: str) -> bool:
        """Say whether the agent offers what the assertion is about."""
        self._is_named(assertion)
        return assertion in self._wanted

    def check(self, assertion: str, probe: Callable[[], bool] | bool, found: object = "") -> bool:
        """Note whether an assertion holds; return it. A function is asked only if the agent offers the assertion.

        Noted twice, an assertion holds when it held both times.
        """
        if not self.wants(assertion):
            return True
        holds = probe() if callable(probe) else probe
        outcome = Outcome.PASSED if holds else Outcome.FAILED
        before = self._findings.get(assertion)
        if before is None or before.outcome is Outcome.PASSED:
            text = "" if holds else str(found() if callable(found) else found)[:FOUND_CHARS_MAX]
            self._findings[assertion] = Finding(assertion, self._scenario, outcome, text)
        return holds

    def until(
        self,
        assertion: str,
        probe: Callable[[], bool],
        found: Callable[[], object] | str,
        deadline_s: float = DEADLINE_S,
    ) -> bool:
        """Wait for an assertion to hold, and note whether it does."""
        if not self.wants(assertion):
            return True
        holds = reached(probe, deadline_s)
        said = found() if callable(found) and not holds else found
        return self.check(assertion, holds, f"not within {deadline_s:.0f} s: {said}")

    def need(self, probe: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
        """Wait for what the scenario cannot go on without. Raises CannotGoOnError."""
        if not reached(probe, deadline_s):
            raise CannotGoOnError(f"not within {deadline_s:.0f} s: {what}")

    def fail_open(self, why: str) -> None:
        """Note that assertions without a finding do not hold: the scenario ended before it came to them."""
        for assertion in self._wanted - self._findings.keys():
            self.check(assertion, False, f"the scenario ended before: {why}")

    def leave_open(self, why: str) -> None:
        """Note that the scenario could not be run where the kit runs."""
        for assertion in self._wanted:
            self.skip(assertion, why)

    def skip(self, assertion: str, why: str) -> None:
        """Note that one assertion could not be looked at where the kit runs."""
        if self.wants(assertion):
            self._findings[assertion] = Finding(assertion, self._scenario, Outcome.NOT_RUN, why)

    def findings(self) -> tuple[Finding, ...]:
        """Return one finding for every assertion that the scenario names."""
        self.fail_open("it came to its end and never looked at this")
        return tuple(
            self._findings.get(name, Finding(name, self._scenario, Outcome.NOT_OFFERED)) for name in self._named
        )

    def _is_named(self, assertion: str) -> None:
        if assertion not in self._named:
            raise KeyError(f"scenario {self._scenario} does not name {assertion}")


Run: TypeAlias = "Callable[[Site, Case], None]"


class Upstream(Enum):
    """What the agent's link leads to."""

    MOSQUITTO = "mosquitto"
    SCRIPTED = "scripted"


class Scenario(Struct, frozen=True):
    """A course of events that shows whether some assertions hold. `opened`: the upstream is up before it begins.

    `slow` ones wait for half a minute and more.
    """

    name: str
    assertions: tuple[str, ...]
    run: Run
    upstream: Upstream
    broker_options: str
    opened: bool
    small_disk: bool
    slow: bool

    def is_for(self, capabilities: frozenset[Capability]) -> bool:
        """Say whether an agent offers any of its assertions."""
        return any(capabilities.issuperset(assertions()[name].needs) for name in self.assertions)


SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(
    *names: str,
    upstream: Upstream = Upstream.MOSQUITTO,
    broker_options: str = "",
    opened: bool = True,
    small_disk: bool = False,
    slow: bool = False,
) -> Callable[[Run], Run]:
    """Register a scenario and the assertions that it looks at."""

    def register(run: Run) -> Run:
        name = run.__name__
        if name in SCENARIOS:
            raise KeyError(f"two scenarios are called {name}")
        SCENARIOS[name] = Scenario(name, names, run, upstream, broker_options, opened, small_disk, slow)
        return run

    return register


def observe(seconds: float) -> None:
    """Let time pass: for assertions that something does not happen. Nothing else may wait for time."""
    reached(lambda: False, seconds)


def reached(probe: Callable[[], bool], deadline_s: float) -> bool:
    """Wait until a condition holds; say whether it did before the deadline."""
    try:
        eventually(probe, "", deadline_s)
    except AssertionError:
        return False
    return True
