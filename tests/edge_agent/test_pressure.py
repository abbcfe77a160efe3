"""The ladder of what a short disk costs: every step in its order, and no going to and fro."""

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.spool.pressure import RESERVE_BYTES, SCARCE_BYTES, STEP_BACK, Step, fullness, step_after


@given(st.lists(st.floats(0, 1.2), max_size=30))
def test_steps_go_up_at_once_and_down_only_with_room(fulls: list[float]) -> None:
    step = Step.NONE
    for full in fulls:
        before, step = step, step_after(step, full)
        assert step >= step_after(Step.NONE, full)
        if step < before:
            assert step_after(Step.NONE, full + STEP_BACK) <= step
        assert step_after(step, full) == step


def test_filling_up_takes_every_step_and_emptying_gives_them_back() -> None:
    step, seen = Step.NONE, []
    for percent in [*range(101), *range(100, -1, -1)]:
        step = step_after(step, percent / 100)
        if not seen or seen[-1] is not step:
            seen.append(step)
    assert seen == [*Step, *reversed(list(Step)[:-1])]


def test_a_full_disk_counts_like_a_full_quota() -> None:
    assert fullness(50, 100, None) == 0.5
    assert fullness(50, 100, 10 * SCARCE_BYTES) == 0.5
    assert step_after(Step.NONE, fullness(0, 100, RESERVE_BYTES + SCARCE_BYTES)) is Step.RING
    assert step_after(Step.NONE, fullness(0, 100, RESERVE_BYTES)) is Step.DROP
    assert step_after(Step.NONE, fullness(0, 100, 0)) is Step.DROP
    assert fullness(90, 100, RESERVE_BYTES + SCARCE_BYTES) == 0.9
