"""A release on trial: the table, what a trial proves, and that nothing refused comes back."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edge_agent.core.updates import rollout as rollouts
from edge_agent.core.updates.rollout import (
    NEXT,
    REFUSED_MAX,
    Begun,
    Compared,
    Decision,
    Failed,
    Limits,
    Ran,
    Restarted,
    Rollout,
    Staged,
    State,
    Step,
)
from edge_agent.errors import IllegalStepError

LIMITS = Limits()
SAME = Compared(events=4_000, kept=400, missed=0, added=0, before_s=0.01, release_s=0.01, grown_mb=1.0)


def shadow(release: int = 2, active: int = 1) -> Rollout:
    """Return a rollout whose release is on trial since 0 s."""
    return rollouts.apply(rollouts.apply(Rollout(), Staged(release, active)), Begun(0.0))


def on_probation() -> Rollout:
    """Return a rollout whose release was swapped in at 0 s."""
    return rollouts.conclude(shadow(), Decision(Step.PROMOTE, "good"), 0.0)


def compared(state: Rollout, chunk: Compared, times: int) -> Rollout:
    for _ in range(times):
        state = rollouts.apply(state, chunk)
    return state


def test_every_pair_follows_the_table_or_is_refused() -> None:
    for state, happened in itertools.product(State, Step):
        if (state, happened) in NEXT:
            assert rollouts.step(state, happened) is NEXT[state, happened]
        else:
            with pytest.raises(IllegalStepError, match="has no row"):
                rollouts.step(state, happened)


def test_every_state_is_reached_and_left() -> None:
    assert {after for _, after in NEXT.items()} == set(State)
    assert {state for (state, _), after in NEXT.items() if after is not state} == set(State)


def test_a_release_that_agrees_is_swapped_in_and_stays() -> None:
    state = compared(shadow(), SAME, 5)
    decision = rollouts.decide(state, 10.0)
    assert decision is not None
    assert decision.step is Step.PROMOTE
    assert decision.why == (
        "release 2 swapped in after 20,000 events in 10 s: 0.0% of the kept events missed, 0.0% of all added, "
        "+0.0 ms per chunk, +1.0 MB"
    )
    state = rollouts.conclude(state, decision, 10.0)
    assert (state.state, state.release, state.previous) == (State.ACTIVE, 2, 1)
    state = rollouts.apply(state, Ran(4_000, 0.01, 0.011, 1.0))
    assert rollouts.decide(state, 10.0 + LIMITS.probation_s - 1) is None
    decision = rollouts.decide(state, 10.0 + LIMITS.probation_s)
    assert decision is not None
    state = rollouts.conclude(state, decision, 400.0)
    assert (state.state, state.release, state.refused) == (State.IDLE, None, ())


def test_a_quiet_device_does_not_wait_for_ever() -> None:
    assert rollouts.decide(shadow(), LIMITS.trial_s - 0.1) is None
    decision = rollouts.decide(shadow(), LIMITS.trial_s)
    assert decision is not None
    assert decision.step is Step.PROMOTE


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (replace(SAME, missed=60), "15.0% of the kept events missed, limit 10.0%"),
        (replace(SAME, added=400), "10.0% of all events sent on top, limit 5.0%"),
        (replace(SAME, release_s=0.03), "20.0 ms more per chunk, limit 10"),
        (replace(SAME, grown_mb=9.0), "9.0 MB more memory, limit 8"),
    ],
)
def test_a_release_that_breaks_a_limit_is_refused_and_not_tried_again(chunk: Compared, why: str) -> None:
    patient = Limits(events_min=10**9)
    state = compared(shadow(), chunk, LIMITS.look_chunks)
    decision = rollouts.decide(state, 3.0, patient)
    assert decision is not None
    assert (decision.step, decision.why) == (Step.REFUSE, f"release 2 refused after 64,000 events in 3 s: {why}")
    state = rollouts.conclude(state, decision, 3.0)
    assert (state.state, state.release, state.why) == (State.ROLLED_BACK, None, decision.why)
    assert rollouts.apply(state, Staged(2, 1)) == state
    assert rollouts.apply(state, Staged(3, 1)).state is State.STAGED


def test_a_few_events_and_the_first_chunks_refuse_nothing() -> None:
    noisy = Compared(events=10, kept=1, missed=1, added=1, before_s=0.0, release_s=0.5, grown_mb=0.0)
    assert rollouts.decide(compared(shadow(), noisy, LIMITS.look_chunks - 1), 1.0) is None


@pytest.mark.parametrize("state", [rollouts.apply(Rollout(), Staged(2, 1)), shadow(), on_probation()])
def test_one_error_is_enough_wherever_it_happens(state: Rollout) -> None:
    failed = rollouts.apply(state, Failed("BundleError: no model"))
    decision = rollouts.decide(failed, 1.0)
    assert decision is not None
    assert decision.step is Step.REFUSE
    assert decision.why.endswith("raised: BundleError: no model")
    assert rollouts.is_refused(rollouts.conclude(failed, decision, 1.0), 2)


def test_a_release_that_lets_the_agent_die_goes_back() -> None:
    state = on_probation()
    for _ in range(LIMITS.restarts_max):
        state = rollouts.apply(state, Restarted(5.0))
        assert rollouts.decide(state, 6.0) is None
    decision = rollouts.decide(rollouts.apply(state, Restarted(5.0)), 6.0)
    assert decision is not None
    assert decision.step is Step.REFUSE
    assert "began anew 3 times" in decision.why


def test_a_restart_during_a_trial_begins_it_anew() -> None:
    state = rollouts.apply(compared(shadow(), SAME, 3), Restarted(50.0))
    assert (state.state, state.release, state.trial) == (State.STAGED, 2, rollouts.Trial())


def test_a_trial_goes_on_over_runs_that_end_in_order() -> None:
    state = shadow()
    for _ in range(4):
        state = rollouts.apply(compared(state, SAME, 1), rollouts.Stopped(50.0))
        state = rollouts.apply(rollouts.apply(state, Restarted(7.0)), Begun(7.0))
        state = replace(state, since_s=0.0)
        assert rollouts.decide(state, 0.0) is None
    assert (state.restarts, state.passed_s, state.trial.events) == (0, 200.0, 16_000)
    decision = rollouts.decide(compared(state, SAME, 1), 10.0)
    assert decision is not None
    assert decision.why.startswith("release 2 swapped in after 20,000 events in 210 s: ")
    decision = rollouts.decide(state, LIMITS.trial_s - 200.0)
    assert decision is not None
    assert decision.step is Step.PROMOTE
    after = rollouts.conclude(state, decision, 400.0)
    assert (after.passed_s, after.trial) == (0.0, rollouts.Trial())


def test_a_release_that_lets_the_agent_die_on_trial_is_refused() -> None:
    state = shadow()
    for _ in range(LIMITS.restarts_max):
        state = rollouts.apply(rollouts.apply(state, Restarted(5.0)), Begun(6.0))
        assert rollouts.decide(state, 7.0) is None
    decision = rollouts.decide(rollouts.apply(state, Restarted(5.0)), 6.0)
    assert decision is not None
    assert decision.step is Step.REFUSE


def test_a_newer_release_takes_the_place_of_the_one_on_trial_and_waits_for_a_probation() -> None:
    state = rollouts.apply(compared(shadow(), SAME, 3), Staged(3, 1))
    assert (state.state, state.release, state.previous, state.trial) == (State.STAGED, 3, 1, rollouts.Trial())
    assert rollouts.apply(on_probation(), Staged(3, 2)) == on_probation()
    assert rollouts.apply(shadow(), Staged(2, 1)) == shadow()


def test_events_that_a_state_does_not_know_are_defects() -> None:
    for state, event in (
        (Rollout(), SAME), (Rollout(), Failed("x")), (on_probation(), SAME), (shadow(), Ran(1, 0.0, 0.0, 0.0)),
        (Rollout(), Begun(0.0)),
    ):  # fmt: skip
        with pytest.raises(IllegalStepError):
            rollouts.apply(state, event)


CHUNKS = st.builds(
    lambda events, kept, missed, added, before_s, release_s, grown_mb: Compared(
        events, min(kept, events), min(missed, kept, events), min(added, events - min(kept, events)), before_s,
        release_s, grown_mb,
    ),
    st.integers(1, 4_000), st.integers(0, 4_000), st.integers(0, 4_000), st.integers(0, 4_000), st.floats(0, 0.1),
    st.floats(0, 0.1), st.floats(-5, 20),
)  # fmt: skip


@given(st.lists(CHUNKS, max_size=40), st.floats(0, 2_000))
def test_nothing_that_breaks_a_limit_is_ever_swapped_in(chunks: list[Compared], now_s: float) -> None:
    state = shadow()
    for chunk in chunks:
        state = rollouts.apply(state, chunk)
    trial, decision = state.trial, rollouts.decide(state, now_s)
    assert trial.events == sum(chunk.events for chunk in chunks)
    if decision is not None and decision.step is Step.PROMOTE:
        assert trial.events >= LIMITS.events_min or now_s >= LIMITS.trial_s
        assert trial.grown_mb <= LIMITS.added_mb_max
        assert trial.events < LIMITS.look_events or trial.missed <= LIMITS.missed_ratio_max * trial.kept
        assert trial.events < LIMITS.look_events or trial.added <= LIMITS.added_ratio_max * trial.events
    if decision is not None:
        assert "\n" not in decision.why
        assert decision.why.startswith("release 2 ")


EVENTS = st.one_of(
    st.builds(Staged, st.integers(1, 6), st.just(1)),
    st.builds(Begun, st.floats(0, 100)),
    CHUNKS,
    st.builds(Ran, st.integers(1, 4_000), st.floats(0, 0.1), st.floats(0, 0.1), st.floats(0, 20)),
    st.builds(Failed, st.just("Error: 出错")),
    st.builds(Restarted, st.floats(0, 100)),
    st.builds(rollouts.Stopped, st.floats(0, 100)),
    st.floats(0, 3_000),
)


@given(st.lists(EVENTS, max_size=80))
def test_whatever_happens_a_refused_release_is_never_in_force_again(events: list[rollouts.Event | float]) -> None:
    state, refused, in_force = Rollout(), set[int](), 1
    for event in events:
        try:
            if isinstance(event, float):
                decision = rollouts.decide(state, event)
                if decision is None:
                    continue
                if decision.step is Step.PROMOTE:
                    assert state.release is not None
                    assert state.release not in refused
                    in_force = state.release
                if decision.step is Step.REFUSE:
                    assert state.release is not None
                    refused.add(state.release)
                    if state.state is State.ACTIVE:
                        assert state.previous is not None
                        in_force = state.previous
                state = rollouts.conclude(state, decision, event)
            else:
                state = rollouts.apply(
                    state, event if not isinstance(event, Staged) else Staged(event.release, in_force)
                )
        except IllegalStepError:
            continue
        assert in_force not in refused
        assert (state.release is None) == (state.state in (State.IDLE, State.ROLLED_BACK))
        assert {entry.release for entry in state.refused} == refused
        assert msgspec.json.decode(msgspec.json.encode(state), type=Rollout) == state


def test_only_so_many_refusals_are_remembered_and_these_are_the_newest() -> None:
    state = Rollout()
    for release in range(2, REFUSED_MAX + 10):
        state = rollouts.apply(rollouts.apply(state, Staged(release, 1)), Failed("x"))
        decision = rollouts.decide(state, 0.0)
        assert decision is not None
        state = rollouts.conclude(state, decision, 0.0)
    assert [entry.release for entry in state.refused] == list(range(10, REFUSED_MAX + 10))
