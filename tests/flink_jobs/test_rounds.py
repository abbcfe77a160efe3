"""Offsets are safe only in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flink_jobs.triggers.preselect.rounds import ROUNDS_WAITING_MAX, Rounds

UNHURRIED = settings(deadline=None)  # a busy machine is no finding


@UNHURRIED
@given(order=st.permutations(range(6)))
def test_an_offset_is_safe_once_everything_before_it_is(order: list[int]) -> None:
    rounds = Rounds()
    started = [rounds.begin({0: n + 1}) for n in range(6)]
    for one in started:
        one.waiting = 1
    safe, done = 0, set[int]()
    for n in order:
        started[n].waiting = 0
        done.add(n)
        safe = rounds.finished().get(0, safe)
        assert safe == next((k for k in range(6) if k not in done), 6)


def test_partitions_are_told_apart() -> None:
    rounds = Rounds()
    rounds.begin({0: 5, 1: 9})
    rounds.begin({0: 6})
    assert rounds.finished() == {0: 6, 1: 9}
    assert len(rounds) == 0


def test_it_is_full_at_its_limit() -> None:
    rounds = Rounds()
    for n in range(ROUNDS_WAITING_MAX):
        assert not rounds.full
        rounds.begin({0: n}).waiting = 1
    assert rounds.full
    rounds.forget()
    assert not rounds.full
