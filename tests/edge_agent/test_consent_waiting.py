"""Events that wait for their person's decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import ranges
from edge_agent.core.consent import waiting
from edge_agent.core.consent.waiting import Waiting


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=60, unique_by=lambda pair: pair[1]))
def test_what_waits_is_what_came_and_was_not_taken(events: list[tuple[str, int]]) -> None:
    held = Waiting()
    for person, number in events:
        held.add("visits", person, str(number).encode(), "app", number)
        assert list(held.overflow()) == []
    assert held.since(0) == len(held) == len(events)
    assert [one.number for one in held.take("a")] == [number for person, number in events if person == "a"]
    left = sorted(number for person, number in events if person == "b")
    assert sorted(held.numbers("app")) == left
    assert held.size_bytes == sum(len(str(number)) for number in left)
    assert held._runs == len(ranges.union((number, number + 1) for number in left))


def test_numbers_that_are_scattered_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "RUNS_MAX", 3)
    held = Waiting()
    for number in range(0, 12, 2):
        held.add("visits", "a", b"x", "app", number)
        gone = [one.number for one in held.overflow()]
        assert gone == ([number - 6] if number >= 6 else [])
