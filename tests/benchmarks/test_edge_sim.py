"""The benchmark of the simulation: that it can be asked for, and that its figures are those of its schedules."""

from pathlib import Path

from msgspec.structs import replace

from benchmarks import __main__ as program
from benchmarks.edge_sim import draw, sum_up
from tests.sim.faults import Fault
from tests.sim.play import play


def test_it_can_be_asked_for_by_name() -> None:
    assert "edge-sim" in program.names()


def test_its_figures_are_sums_over_schedules(tmp_path: Path) -> None:
    sound = [play(seed) for seed in range(3)]
    broken = replace(sound[0], seed=77, lost=4, doubled=2, failure="4 lost, 2 doubled")
    measured = sum_up([*sound, broken], 1.0)
    assert (measured.figures["sim_schedules"], measured.figures["sim_failed"]) == (4, 1)
    assert (measured.figures["sim_lost"], measured.figures["sim_doubled"]) == (4, 2)
    assert measured.how["failed_seeds"] == {"77": "4 lost, 2 doubled"}
    assert set(measured.how["faults"]) == {fault.value for fault in Fault}
    draw(tmp_path / "edge-sim.png", [*sound, broken])
    assert (tmp_path / "edge-sim.png").stat().st_size > 10_000
