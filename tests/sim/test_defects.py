"""The simulation is worth something: whatever defect is put into the agent, some seed of a small set finds it."""

import pytest

from tests.sim.defects import DEFECTS
from tests.sim.play import play

SEEDS = range(40)  # all of which hold without a defect


@pytest.mark.parametrize("defect", DEFECTS)
def test_some_schedule_finds_a_defect(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DEFECTS[defect](monkeypatch)
    assert any(play(seed).failure is not None for seed in SEEDS)
