"""The send window: what each answer means, and that nothing but a watermark ends a batch."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import ranges
from edge_agent.core.sources.pacing import CHUNK_EVENTS_MAX, CONNECT_S_MAX, connect_pause_s, due_events
from edge_agent.core.spool.segment import PendingBatch
from edge_agent.core.uplink import sending as module
from edge_agent.core.uplink.sending import (
    DUE_EXTRA,
    LIVE_PLACES,
    NEXT,
    PAUSE_S,
    RESEND_S,
    RETRY_S,
    SEND_WINDOW,
    Event,
    Lane,
    SendWindow,
    State,
    step,
)
from edge_agent.errors import IllegalStepError


def batch(number: int) -> PendingBatch:
    return PendingBatch(number, "telemetry", number * 10, 10, 1, 0, 1)


def filled(count: int) -> SendWindow:
    window = SendWindow()
    window.add(batch(number) for number in range(count))
    return window


def test_every_pair_has_a_row_or_is_refused() -> None:
    for state in State:
        for event in Event:
            if (state, event) in NEXT:
                assert step(state, event) is NEXT[state, event]
            else:
                with pytest.raises(IllegalStepError, match=state.name):
                    step(state, event)


def test_only_a_watermark_commits_and_nothing_leaves_committed() -> None:
    assert {event for (_, event), after in NEXT.items() if after is State.COMMITTED} == {Event.WATERMARK}
    assert {state for state, event in NEXT if event is Event.WATERMARK} == set(State) - {State.COMMITTED}
    assert all(state is not State.COMMITTED for state, _ in NEXT)


def test_the_window_limits_what_is_open_and_an_answer_opens_it() -> None:
    window = filled(SEND_WINDOW + 5)
    sent = [window.take(0.0) for _ in range(SEND_WINDOW)]
    assert [s.batch.id for s in sent if s is not None] == list(range(SEND_WINDOW))
    assert window.take(0.0) is None
    window.answered(0, Event.ACCEPTED, 0.0)
    found = window.take(0.0)
    assert found is not None
    assert found.batch.id == SEND_WINDOW
    assert len(window) == SEND_WINDOW + 5


def test_an_accepted_batch_goes_again_when_no_watermark_comes_ever_more_slowly() -> None:
    window = filled(1)
    now, waits = 0.0, []
    for _ in range(6):
        assert window.take(now) is not None
        window.answered(0, Event.ACCEPTED, now)
        due = window.next_due_s()
        assert due is not None
        window.tick(due - 0.001)
        assert window.take(due - 0.001) is None
        waits.append(due - now)
        now = due
        window.tick(now)
    assert waits == [RESEND_S, 60.0, 120.0, 240.0, 300.0, 300.0]
    assert (window.published, window.resent) == (1, 5)


def test_nobody_listening_pauses_everything_for_a_while() -> None:
    window = filled(3)
    assert window.take(0.0) is not None
    window.answered(0, Event.UNHEARD, 0.0)
    assert window.take(module.PAUSE_S / 2) is None
    found = window.take(module.PAUSE_S)
    assert found is not None
    assert found.batch.id == 1
    window.tick(RETRY_S)
    again = window.take(RETRY_S)
    assert again is not None
    assert again.batch.id == 0


def test_a_refused_batch_is_held_and_the_others_go_on() -> None:
    window = filled(2)
    assert window.take(0.0) is not None
    window.answered(0, Event.REFUSED, 0.0)
    window.link_lost()
    window.resumed()
    found = window.take(1e9)
    assert found is not None
    assert found.batch.id == 1
    assert window.take(1e9) is None
    assert window.held == 1
    assert [b.id for b in window.commit({"telemetry": ((0, 10),)})] == [0]


def test_after_a_lost_link_the_open_ones_go_at_once_and_the_accepted_ones_once_resumed() -> None:
    window = filled(3)
    for _ in range(3):
        window.take(0.0)
    window.answered(0, Event.ACCEPTED, 0.0)
    window.link_lost()
    window.answered(1, Event.ACCEPTED, 0.0)  # over the old link: says nothing
    assert [s.batch.id for s in iter(lambda: window.take(1.0), None)] == [1, 2]
    window.answered(1, Event.ACCEPTED, 1.0)
    window.resumed()
    assert [s.batch.id for s in iter(lambda: window.take(1.0), None)] == [0]  # 1 was accepted over this link


def test_a_watermark_may_be_faster_than_the_puback() -> None:
    window = filled(1)
    window.take(0.0)
    assert len(window.commit({"telemetry": ((0, 10),)})) == 1
    window.answered(0, Event.ACCEPTED, 0.0)
    assert len(window) == 0


@given(st.sets(st.integers(0, 19)), st.integers(0, 5))
def test_exactly_what_is_covered_is_committed(committed: set[int], extra: int) -> None:
    window = filled(20)
    held = ranges.union((number * 10, number * 10 + 10) for number in committed)
    assert {b.id for b in window.commit({"telemetry": held, "other": ((0, extra),)})} == committed
    assert len(window) == 20 - len(committed)


def test_any_order_of_answers_and_faults_ends_with_everything_committed() -> None:
    for seed in range(100):
        rng = random.Random(seed)
        window, now = filled(30), 0.0
        for _ in range(200):
            now += rng.random()
            window.tick(now)
            action = rng.random()
            if action < 0.6:
                taken = window.take(now)
                if taken is not None:
                    answer = rng.choice([Event.ACCEPTED, Event.ACCEPTED, Event.UNHEARD])
                    window.answered(taken.batch.id, answer, now)
            elif action < 0.7:
                window.link_lost()
            elif action < 0.8:
                window.resumed()
            elif action < 0.9:
                number = rng.randrange(30)
                window.commit({"telemetry": ((number * 10, number * 10 + 10),)})
        window.commit({"telemetry": ((0, 300),)})
        assert len(window) == 0, f"seed={seed}"


def test_events_are_due_by_the_clock_and_never_more_than_a_flush_holds() -> None:
    assert due_events(0, 0.0, 10**6) == CHUNK_EVENTS_MAX
    assert due_events(100.0, 1.0, 0) == 100
    assert due_events(100.0, 1.0, 100) == 0
    assert due_events(100.0, 1.0, 150) == 0
    assert due_events(1e6, 60.0, 0) == CHUNK_EVENTS_MAX


def test_pauses_before_connecting_grow_and_differ() -> None:
    assert connect_pause_s(0, lambda: 0.0) == 0.25
    assert connect_pause_s(1_000, lambda: 0.999999) == pytest.approx(CONNECT_S_MAX, rel=1e-5)
    assert connect_pause_s(3, lambda: 0.1) < connect_pause_s(3, lambda: 0.9) < connect_pause_s(6, lambda: 0.9)


def in_segment(segment: int, first: int, count: int) -> list[PendingBatch]:
    return [PendingBatch(n, "telemetry", n * 10, 10, segment, 0, 1) for n in range(first, first + count)]


def taken(window: SendWindow, now_s: float = 0.0) -> list[int]:
    return [s.batch.id for s in iter(lambda: window.take(now_s), None)]


def test_live_goes_before_backlog_and_finds_its_places_free() -> None:
    window = SendWindow()
    window.add(in_segment(1, 0, 100), Lane.BACKLOG)
    window.add(in_segment(2, 100, 3))
    assert taken(window) == [100, 101, 102, *range(SEND_WINDOW - LIVE_PLACES)]
    window.add(in_segment(2, 103, 10))
    assert taken(window) == [103, 104, 105]  # what is left of the places that backlog may not take
    for number in range(SEND_WINDOW - LIVE_PLACES):
        window.answered(number, Event.ACCEPTED, 0.0)
    assert taken(window) == [*range(106, 113), *range(14, 21)]


def test_a_window_of_one_still_drains_the_backlog() -> None:
    window = SendWindow()
    window.window = 1
    window.add(in_segment(1, 0, 3), Lane.BACKLOG)
    for number in range(3):
        assert taken(window) == [number]
        window.answered(number, Event.ACCEPTED, 0.0)


def test_a_segment_leaves_memory_unless_something_of_it_is_under_way() -> None:
    window = SendWindow()
    window.add(in_segment(1, 0, 30))
    window.add(in_segment(2, 30, 5))
    assert taken(window) == list(range(SEND_WINDOW))
    assert not window.shed(1)
    assert window.shed(2)
    assert (len(window), window.segments()) == (30, {1})
    window.add(in_segment(2, 30, 5), Lane.BACKLOG)
    window.add(in_segment(2, 30, 5))  # is there already
    assert (len(window), window.backlog, window.segments()) == (35, 5, {1, 2})
    assert {b.id for b in window.commit({"telemetry": ((0, 350),)})} == set(range(35))
    assert (len(window), window.backlog, window.segments()) == (0, 0, set())


def test_batches_in_any_order_are_committed_as_soon_as_they_are_covered() -> None:
    window = SendWindow()
    window.add(in_segment(4, 30, 5), Lane.BACKLOG)
    window.add(in_segment(1, 0, 5), Lane.BACKLOG)
    assert {b.id for b in window.commit({"telemetry": ((0, 50),)})} == {0, 1, 2, 3, 4}
    assert window.segments() == {4}


def test_a_batch_that_is_dropped_is_neither_sent_nor_committed() -> None:
    window = filled(3)
    window.drop(1)
    window.drop(1)
    assert taken(window) == [0, 2]
    assert [b.id for b in window.commit({"telemetry": ((0, 30),)})] == [0, 2]


def test_a_batch_that_is_dropped_makes_room_for_the_next() -> None:
    window = filled(SEND_WINDOW + 1)
    for _ in range(SEND_WINDOW):
        window.take(0.0)
    window.drop(0)
    assert window.take(0.0) is not None
    assert window.oldest_outstanding_s() == 0.0


def test_a_pause_that_is_over_wakes_nobody() -> None:
    window = filled(SEND_WINDOW + 1)
    for _ in range(SEND_WINDOW):
        window.take(0.0)
    window.answered(0, Event.UNHEARD, 0.0)
    assert window.next_due_s() == PAUSE_S
    window.tick(PAUSE_S)
    assert window.take(PAUSE_S) is not None
    assert window.next_due_s() == RETRY_S  # there are ready batches, and no place for them


def test_batches_that_are_committed_leave_no_times_behind() -> None:
    window = SendWindow()
    most = 0
    for number in range(1_000):
        window.add([batch(number)])
        assert window.take(0.0) is not None
        window.answered(number, Event.ACCEPTED, 0.0)
        if number != 5:  # one that the lake does not commit, and that must go again
            window.commit({"telemetry": ((batch(number).first_seq, batch(number).end_seq),)})
        most = max(most, len(window._due))
    assert most <= 2 * 2 + DUE_EXTRA + 1
    window.tick(RESEND_S)
    again = window.take(RESEND_S)
    assert again is not None
    assert again.batch.id == 5
