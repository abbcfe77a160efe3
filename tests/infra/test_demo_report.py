"""Plots and percentiles of a run in which something was not measured at all."""

import math
from pathlib import Path

from infra.demo.figures import latency, reached
from infra.demo.plots import bars, distributions, timeline


def test_nothing_measured_is_no_number_and_reaches_nothing() -> None:
    spread = latency([])
    assert spread.count == 0
    assert math.isnan(spread.p99_ms)
    assert reached("freshness_p99_ms", spread.p99_ms) is None


def test_percentiles_are_of_all_samples() -> None:
    spread = latency([float(n) for n in range(1, 102)])
    assert (spread.count, spread.p50_ms, spread.p95_ms, spread.max_ms) == (101, 51.0, 96.0, 101.0)


def test_an_aim_is_reached_at_its_bound() -> None:
    assert reached("filter_recall", 0.99) is True
    assert reached("rows_lost", 1) is False
    assert reached("wire_bytes_per_event", 5.0) is None


def test_plots_without_a_sample_are_left_out(tmp_path: Path) -> None:
    timeline(tmp_path / "timeline.png", "title", [], {"kill": 1.0})
    distributions(tmp_path / "distributions.png", "title", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_plots_are_png_files(tmp_path: Path) -> None:
    timeline(tmp_path / "timeline.png", "title", [(1.0, 20.0), (2.0, 30.0)], {"kill": 1.0})
    distributions(tmp_path / "distributions.png", "title", {"a": [1.0, 2.0]}, {"a": 5.0})
    bars(tmp_path / "bars.png", "title", "MB", {"agent": 40.0})
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 3
