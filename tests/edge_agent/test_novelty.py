"""What counts as new in a single series."""

import numpy as np
import pytest
from msgspec.structs import replace

from edge_agent.core.filter.extremes import Memory
from edge_agent.core.filter.novelty import NOVELTY_ALARM, NOVELTY_MAX, Novelty, NoveltySettings

# Eight readings of warm-up, a level that is remembered for 16 to 23, no weight on steps unless a test gives it.
SETTINGS = NoveltySettings(warm_rows=8, level=Memory(8, 2), step=Memory(8, 1), step_weight=0.0, quiet=Memory(1, 2))


def scores(values: list[float], settings: NoveltySettings = SETTINGS) -> list[float]:
    _, found = Novelty.start(settings).advance(np.array(values))
    return found.tolist()


def test_the_score_is_the_share_of_the_range_by_which_it_is_left() -> None:
    swing = [0.0, 10.0] * 4
    found = scores([*swing, 5.0, 11.0, 11.0, -2.2])
    assert np.isnan(found[:8]).all()
    assert found[8:] == pytest.approx([0.0, 0.1, 0.0, 0.2])


def test_a_disturbance_is_told_once_for_each_time_that_it_grows() -> None:
    found = scores([0.0, 10.0] * 4 + [20.0, 21.0, 40.0])
    assert found[8] == 1.0
    assert found[9] == 0.0  # beyond the range, and by less than what was told two readings ago
    assert found[10] == 0.0  # 19/21 of the range by now
    assert scores([0.0, 10.0] * 4 + [20.0, 62.0])[9] == pytest.approx(2.1)


def test_what_was_forgotten_is_new_again() -> None:
    calm = [4.0, 6.0]
    assert scores(calm * 4 + [100.0] + calm * 7 + [100.0])[-1] == 0.0
    assert scores(calm * 4 + [100.0] + calm * 16 + [100.0])[-1] == 47.0


def test_a_step_at_a_usual_level_is_new_when_steps_count() -> None:
    slow = [float(value) for value in [*range(20), *range(20, 0, -1)]]  # steps of +1 and -1
    with_steps = replace(SETTINGS, level=Memory(8, 8), step=Memory(8, 8), step_weight=0.5)
    assert scores([*slow, 18.0], replace(with_steps, step_weight=0.0))[-1] == 0.0
    assert scores([*slow, 18.0], with_steps)[-1] == 0.5 * (17.0 - 1.0) / 2.0


def test_a_range_of_no_width_is_left_by_the_most_there_is() -> None:
    assert scores([3.0] * 9 + [3.5])[-1] == NOVELTY_MAX


def test_noise_of_one_kind_is_hardly_ever_new_and_a_spike_is() -> None:
    noise = np.random.default_rng(1).normal(size=20_000)
    noise[15_000] = 12.0
    _, found = Novelty.start().advance(noise)
    alarms = np.flatnonzero(found >= NOVELTY_ALARM)
    assert 15_000 in alarms
    assert np.count_nonzero(alarms > 1_000) < 20
    assert found[15_000] == np.nanmax(found[1_000:])
