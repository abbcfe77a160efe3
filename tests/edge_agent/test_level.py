"""What a machine may do without being told on, and what it may not."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.core.filter.level import LEVEL_ALARM, SPREADS_MAX, LevelSettings, LevelShift

ROWS = 1_200


def noise(seed: int, sensors: int = 2) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(ROWS, sensors))


def scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    _, found = LevelShift.start(rows.shape[1]).advance(rows)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_machine_that_stays_as_it_was_is_left_alone(seed: int) -> None:
    found = scores(noise(seed))
    assert np.isnan(found[:400]).all()
    assert np.mean(found[400:] >= LEVEL_ALARM) < 0.02


def test_a_shift_of_four_deviations_is_told_within_a_window_and_so_is_its_end() -> None:
    rows = noise(1)
    rows[600:800, 1] += 4.0
    alarms = scores(rows) >= LEVEL_ALARM
    assert alarms[620:800].all()
    assert not alarms[830:].any()


def test_what_wandered_while_it_was_learned_may_go_on() -> None:
    rows = noise(2)
    warming = np.linspace(0.0, 30.0, ROWS)
    together = np.column_stack((rows[:, 0], rows[:, 1] + warming))
    assert not (scores(together)[400:] >= LEVEL_ALARM).any()
    assert (scores(rows + warming[:, np.newaxis] * (np.arange(ROWS) > 400)[:, np.newaxis])[900:] >= LEVEL_ALARM).all()


def test_a_return_most_of_the_way_is_a_return() -> None:
    rows = noise(3)
    rows[500:700, 0] += 100.0
    rows[700:, 0] += 3.0  # a lasting trace, that alone would be told
    found = scores(rows)
    assert (found[520:700] > 100.0).all()
    assert not found[730:].any()
    rows[500:700, 0] -= 100.0
    assert (scores(rows)[730:] >= LEVEL_ALARM).all()


def test_the_steps_of_a_coarse_sensor_are_no_anomaly() -> None:
    rows = np.full((ROWS, 1), 32.0)
    rows[50] = 33.0  # one step of its resolution, once
    rows[500:503] = 33.0
    rows[700:] = 35.0
    found = scores(rows)
    assert not (found[400:690] >= LEVEL_ALARM).any()
    assert (found[720:] >= LEVEL_ALARM).all()


def test_a_sensor_that_never_moved_may_not() -> None:
    rows = noise(5)
    rows[:, 1] = 7.0
    rows[900, 1] = 7.1
    found = scores(rows)
    assert np.nanmax(found[:900]) < LEVEL_ALARM + 1.0
    assert found[900] == pytest.approx(SPREADS_MAX, rel=1e-4)


def test_a_missing_value_is_the_last_one_still() -> None:
    rows = noise(6)
    held = rows.copy()
    held[650:660, 0] = held[649, 0]
    rows[650:660, 0] = np.nan
    assert scores(rows).tobytes() == scores(held).tobytes()


def test_a_sensor_that_never_spoke_leaves_no_opinion() -> None:
    rows = noise(7)
    rows[:, 1] = np.nan
    assert np.isnan(scores(rows)).all()


@pytest.mark.parametrize(("learn_rows", "window_rows"), [(400, 0), (400, 101), (3, 1)])
def test_settings_that_nothing_can_be_learned_with_are_refused(learn_rows: int, window_rows: int) -> None:
    with pytest.raises(ValueError, match="no two distances can be told apart"):
        LevelSettings(learn_rows=learn_rows, window_rows=window_rows)


def test_no_sensor_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        LevelShift.start(0)
