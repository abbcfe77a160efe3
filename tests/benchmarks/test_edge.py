"""The edge's benchmark: that its parts can be asked for, and that each works on a small workload."""

from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import edge, edge_backlog, edge_plots, edge_reduction, edge_throughput
from contracts.errors import OperatorMustActError


def quiet(_text: str) -> None:
    """Say nothing."""


def test_it_can_be_asked_for_by_name_and_its_parts_cannot() -> None:
    assert "edge" in program.names()
    assert not {"edge-backlog", "edge-codec", "edge-reduction", "edge-throughput"} & set(program.names())


def test_a_part_that_there_is_none_of_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["edge", "--only", "codecs"]) == 1
    assert "expected parts of codec" in capsys.readouterr().err


def test_a_benchmark_without_parts_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["spine", "--only", "codec"])
    assert "measured as a whole" in capsys.readouterr().err


def test_plots_are_drawn_for_the_parts_there_are(tmp_path: Path) -> None:
    plots = {
        "codec": {"telemetry": {10: 20.0, 50: 12.0}},
        "memory": {"full": [(0.0, 30.0), (1.0, 60.0)]},
        "backlog": {"pss": [(0.0, 30.0)], "drained": [(0, 10), (1, 20)]},
        "unknown": {},
    }
    edge_plots.draw(tmp_path / "a" / "edge.png", plots)
    assert (tmp_path / "a" / "edge.png").read_bytes()[:4] == b"\x89PNG"
    edge_plots.draw(tmp_path / "none.png", {})
    assert not (tmp_path / "none.png").exists()


def test_every_part_has_a_function() -> None:
    assert all(callable(measure) for measure in edge.PARTS.values())


@pytest.mark.stack
def test_less_leaves_than_came_and_no_anomaly_is_missed() -> None:
    figures, how = edge_reduction.measure(quiet, duration_s=20)
    assert figures["reduction_ratio"] > 50
    assert figures["filter_recall"] >= 0.99
    assert set(how["by machines"]) == {"1", "4", "20"}


def test_a_rate_is_taken_from_the_first_warm_report_to_the_last_before_the_end() -> None:
    assert edge_throughput.span([10, 120, 500, 900, 1_000]) == (1, 3)
    # The only warm reports are the last two: the rate is of what lies before them, never of no time.
    assert edge_throughput.span([10, 950, 1_000]) == (0, 1)
    assert edge_throughput.span([500, 950, 1_000]) == (0, 1)


def test_a_run_of_too_few_reports_has_no_rate() -> None:
    with pytest.raises(OperatorMustActError, match="take more events"):
        edge_throughput.span([950, 1_000])


@pytest.mark.stack
def test_throughput_is_of_events_that_are_all_accounted_for() -> None:
    figures, how = edge_throughput.measure(quiet, events=800_000, runs=1)
    assert figures["events_per_s_core"] > 0
    assert 0.9 < how["dropped or aggregated"] < 0.95


@pytest.mark.stack
def test_a_backlog_drains_to_its_end() -> None:
    figures, how = edge_backlog.measure(quiet, backlog_bytes=20_000_000, compared_s=3.0)
    assert figures["drain_mb_per_s"] > 0
    assert how["latency_ms"]["while draining"]["count"] >= 0
