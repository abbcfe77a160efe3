"""How an agent with bundles from a repository begins: with the first release, or the one that should be in force."""

import logging
from collections.abc import Callable

from contracts.errors import OperatorMustActError
from contracts.ports import Clock
from edge_agent.bundle_swaps import Shelf
from edge_agent.bundle_updates import BundleUpdates
from edge_agent.core.intake import Plan
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


def begin(shelf: Shelf, load: Callable[[int], Plan], now_s: float) -> tuple[Rollout, Plan]:
    """Return how the rollout stands, and the plan of the release that is in force.

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
    rollout = rollouts.resumed(shelf.rollout(), active, shelf.refusals(), now_s)
    _write(lambda: shelf.note(rollout))  # Step 1.
    decision = rollouts.decide(rollout, now_s)
    if rollout.state is not State.ACTIVE or decision is None or decision.step is not Step.REFUSE:
        try:
            return rollout, load(active)  # Step 2.
        except OperatorMustActError as error:
            if rollout.state is not State.ACTIVE:
                raise
            failed = rollouts.apply(rollout, rollouts.Failed(f"{type(error).__name__}: {error}"))
            decision = rollouts.decide(failed, now_s)
            assert decision is not None
    return _gone_back(shelf, load, rollout, decision, now_s)


def _gone_back(
    shelf: Shelf, load: Callable[[int], Plan], rollout: Rollout, decision: Decision, now_s: float
) -> tuple[Rollout, Plan]:
    release, previous = rollout.release, rollout.previous
    assert release is not None
    assert previous is not None
    _log.warning("bundle_refuse %s", decision.why)
    plan = load(previous)
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
