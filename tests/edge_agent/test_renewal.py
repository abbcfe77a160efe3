"""When a device renews its certificate, and that it never stands there without one that works."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.updates import renewal
from edge_agent.core.updates.renewal import (
    ANSWER_MS_MAX,
    JITTER,
    MAKING_MS_MAX,
    RENEW_AT,
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    TRIES_MAX,
    Answered,
    ConnectWithNext,
    Discard,
    Failed,
    LinkRefused,
    LinkUp,
    Made,
    MakeRequest,
    Promote,
    Publish,
    Renewal,
    RenewalEvent,
    Step,
    Store,
    Stored,
    Tick,
    Validity,
    Wish,
)

DAY_MS = 86_400_000
FIRST = Validity(0, 30 * DAY_MS)
SECOND = Validity(20 * DAY_MS, 50 * DAY_MS)
DUE_MS = 20 * DAY_MS


def no_jitter() -> float:
    return 0.0


def play(state: Renewal, *events: tuple[RenewalEvent, int]) -> tuple[Renewal, list[Wish]]:
    """Apply events at their times; return the last state and all wishes."""
    wishes: list[Wish] = []
    for event, now_ms in events:
        state, new = renewal.step(state, event, now_ms, no_jitter)
        wishes += new
    return state, wishes


HAPPY: list[tuple[RenewalEvent, int]] = [
    (Tick(), DUE_MS), (Made(b"request"), DUE_MS + 500), (Answered(b"answer"), DUE_MS + 600),
    (Stored(SECOND), DUE_MS + 700), (LinkUp(by_next=True), DUE_MS + 900),
]  # fmt: skip


@given(st.integers(0, 2**41), st.integers(1_000, 400 * DAY_MS), st.floats(0, 1, exclude_max=True))
def test_a_certificate_is_renewed_at_two_thirds_of_its_life_or_a_little_before(
    begin_ms: int, life_ms: int, chance: float
) -> None:
    at_ms = renewal.renew_at_ms(Validity(begin_ms, begin_ms + life_ms), chance)
    assert (at_ms - begin_ms + 1) / life_ms >= RENEW_AT - JITTER
    assert (at_ms - begin_ms) / life_ms <= RENEW_AT


def test_a_fleet_that_enrolled_at_once_does_not_renew_at_once() -> None:
    random = Random(1)
    hours = {renewal.begin(FIRST, random.random).due_ms // 3_600_000 for _ in range(1_000)}
    assert len(hours) > 30


def test_the_way_from_one_certificate_to_the_next() -> None:
    state, wishes = play(renewal.begin(FIRST, no_jitter), *HAPPY)
    assert wishes == [MakeRequest(), Publish(b"request"), Store(b"answer"), ConnectWithNext(), Promote()]
    assert state == renewal.begin(SECOND, no_jitter)


def test_nothing_happens_before_it_is_due() -> None:
    state = renewal.begin(FIRST, no_jitter)
    assert renewal.next_due_ms(state) == DUE_MS
    assert renewal.step(state, Tick(), DUE_MS - 1, no_jitter) == (state, ())


def test_a_certificate_of_unknown_life_is_left_alone() -> None:
    state = renewal.begin(None, no_jitter)
    assert renewal.next_due_ms(state) is None
    assert renewal.step(state, Tick(), 2**50, no_jitter) == (state, ())


def test_a_request_is_repeated_as_it_is_until_it_is_answered() -> None:
    state, _ = play(renewal.begin(FIRST, no_jitter), *HAPPY[:2])
    state, wishes = play(
        state, (Tick(), DUE_MS + 600), (LinkUp(by_next=False), DUE_MS + 700), (Tick(), DUE_MS + 700 + ANSWER_MS_MAX)
    )
    assert wishes == [Publish(b"request")] * 2
    assert state.step is Step.ASKING


def test_a_child_that_hangs_is_given_up() -> None:
    state, wishes = play(renewal.begin(FIRST, no_jitter), HAPPY[0], (Tick(), DUE_MS + MAKING_MS_MAX))
    assert wishes == [MakeRequest(), Discard()]
    assert state.step is Step.RESTING


@pytest.mark.parametrize("done", [1, 2, 3])
def test_whatever_fails_it_begins_again_after_a_pause_that_grows(done: int) -> None:
    state, now_ms, pauses = renewal.begin(FIRST, no_jitter), DUE_MS, []
    for _ in range(10):
        state, wishes = play(state, *((event, now_ms) for event, _ in HAPPY[:done]), (Failed("no"), now_ms))
        assert wishes[-1] == Discard()
        assert state.last_error == "no"
        due_ms = renewal.next_due_ms(state)
        assert due_ms is not None
        pauses.append(due_ms - now_ms)
        now_ms = due_ms
    assert pauses[0] == RETRY_MS_MIN
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_MS_MAX
    state, wishes = play(state, *((event, now_ms) for event, _ in HAPPY))
    assert wishes[-1] == Promote()
    assert state.failures == 0


def test_a_next_certificate_that_opens_nothing_is_thrown_away() -> None:
    state, _ = play(renewal.begin(FIRST, no_jitter), *HAPPY[:4])
    for _ in range(TRIES_MAX - 1):
        assert renewal.connects_with_next(state)
        state, wishes = play(state, (LinkRefused(), DUE_MS + 1_000))
        assert wishes == []
    state, wishes = play(state, (LinkRefused(), DUE_MS + 1_000))
    assert wishes == [Discard()]
    assert not renewal.connects_with_next(state)
    assert state.present == FIRST


def test_a_connection_by_the_present_certificate_proves_nothing_of_the_next() -> None:
    state, _ = play(renewal.begin(FIRST, no_jitter), *HAPPY[:4])
    assert play(state, (LinkUp(by_next=False), DUE_MS + 1_000)) == (state, [])


def test_a_start_tries_a_next_certificate_that_it_finds() -> None:
    state = renewal.begin_with_next(FIRST, SECOND, no_jitter)
    assert renewal.connects_with_next(state)
    state, wishes = play(state, (LinkUp(by_next=True), DUE_MS))
    assert wishes == [Promote()]
    assert state.present == SECOND


EVENTS = st.one_of(
    st.just(Tick()), st.binary(max_size=3).map(Made), st.binary(max_size=3).map(Answered), st.just(Stored(SECOND)),
    st.just(Failed("x")), st.booleans().map(LinkUp), st.just(LinkRefused()),
)  # fmt: skip


@given(st.lists(st.tuples(EVENTS, st.integers(0, DAY_MS)), max_size=60))
def test_no_order_of_events_promotes_what_has_not_opened_a_connection(events: list[tuple[RenewalEvent, int]]) -> None:
    state, now_ms, stored = renewal.begin(FIRST, no_jitter), 0, False
    for event, passed_ms in events:
        now_ms += passed_ms
        before = state
        state, wishes = renewal.step(state, event, now_ms, no_jitter)
        if Promote() in wishes:
            assert stored
            assert event == LinkUp(by_next=True)
        stored = (stored or ConnectWithNext() in wishes) and Promote() not in wishes and Discard() not in wishes
        assert renewal.connects_with_next(state) == stored
        assert state.present in (FIRST, SECOND)
        assert len(wishes) <= 1
        if state.step in (Step.RESTING, Step.MAKING, Step.ASKING):
            due_ms = renewal.next_due_ms(state)
            assert due_ms is not None  # something always happens by itself
        if before.step is state.step and not wishes:
            assert before.present == state.present
