"""How an agent with bundles from a repository begins: with the first release, or the one that should be in force."""

import logging
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from contracts.errors import OperatorMustActError
from contracts.ports import Clock
from edge_agent.bundle_ports import Shelf
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.plan import Plan
from edge_agent.core.updates import rollout as rollouts
from edge_agent.core.updates.rollout import Decision, Rollout, State, Step
from edge_agent.errors import BundleError

_log = logging.getLogger(__name__)


def await_first(updates: BundleUpdates, shelf: Shelf, clock: Clock, wait: Callable[[float], bool]) -> bool:
    """Look for bundles until a release is in force; return False as soon as `wait` does, which is told for how long."""
    while shelf.active() is None:
        now_s = clock.monotonic_s()
        updates.turn(now_s)
        if not wait(max(0.0, updates.due_s(now_s) - now_s)):
            return False
    return True


class Begun(Struct, frozen=True):
    """How an agent begins: with `plan`, once windows that only `before` has were filled again and ended."""

    rollout: Rollout
    plan: Plan
    before: Plan | None = None


class Loader(Protocol):
    """Releases as plans; see `adapters.bundle_loading`."""

    def plan(self, release: int) -> Plan:
        """Load a release. Raises OperatorMustActError."""
        ...

    def bare(self, release: int) -> Plan | None:
        """Return a release without what decides about events, None when it cannot be loaded."""
        ...


def begin(shelf: Shelf, loader: Loader, decided_by: int, now_s: float) -> Begun:
    """Return how the rollout stands, and the plan of the release that is in force.

    That is the one which the spool's newest record names in `decided_by` (0 for none), unless it was refused since: a
    swap has happened once it is recorded, and the shelf is brought up to it. Without one it is the shelf's.

    1. count   the start is noted before anything is loaded: a release that takes the agent with it is gone back from.
    2. load    the release in force. One on probation that cannot be loaded, or is refused by now, is not.
    3. refuse  such a release is not tried again.
    4. activate  the one before, which is loaded instead.
    5. note    that. Crash before: the next start comes to the same.

    Raises OperatorMustActError when there is nothing to go back to. A disk that takes no writes stops nothing.
    """
    active = shelf.active()
    if active is None:
        raise BundleError("bundles: no release is in force: connect the device, it fetches its first one")
    refusals = shelf.refusals()
    if decided_by not in (0, active) and decided_by not in refusals and shelf.has(decided_by):
        active = decided_by
        _write(lambda: shelf.activate(decided_by))
    rollout = rollouts.resumed(shelf.rollout(), active, refusals, now_s)
    _write(lambda: shelf.note(rollout))  # Step 1.
    decision = rollouts.decide(rollout, now_s)
    if rollout.state is not State.ACTIVE or decision is None or decision.step is not Step.REFUSE:
        try:
            plan = loader.plan(active)  # Step 2.
            return Begun(rollout, plan, _windows_of(loader, decided_by, active))
        except OperatorMustActError as error:
            if rollout.state is not State.ACTIVE:
                raise
            failed = rollouts.apply(rollout, rollouts.Failed(f"{type(error).__name__}: {error}"))
            decision = rollouts.decide(failed, now_s)
            assert decision is not None
    rollout, plan = _gone_back(shelf, loader, rollout, decision, now_s)
    return Begun(rollout, plan, _windows_of(loader, decided_by, plan.release))


def _windows_of(loader: Loader, decided_by: int, release: int | None) -> Plan | None:
    return loader.bare(decided_by) if decided_by not in (0, release) else None


def _gone_back(
    shelf: Shelf, loader: Loader, rollout: Rollout, decision: Decision, now_s: float
) -> tuple[Rollout, Plan]:
    release, previous = rollout.release, rollout.previous
    assert release is not None
    assert previous is not None
    _log.warning("bundle_refuse %s", decision.why)
    plan = loader.plan(previous)
    if release not in shelf.refusals():
        _write(lambda: shelf.refuse(release, decision.why))  # Step 3.
    _write(lambda: shelf.activate(previous))  # Step 4.
    after = rollouts.conclude(rollout, decision, now_s)
    _write(lambda: shelf.note(after))  # Step 5.
    return after, plan


def _write(step: Callable[[], None]) -> None:
    try:
        step()
    except OSError as error:
        _log.warning("bundles: %s: free some disk, the next start comes to the same", error)
