"""The lakehouse's benchmarks: that they can be asked for, what they plan, and what their pure parts do."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import (
    __main__ as program,
)
from benchmarks import (
    commit_growth,
    ducklake,
    freshness,
    ingest,
    lake_chaos,
    maintenance,
    schema_change,
)
from benchmarks.lake import kills
from benchmarks.lake.plots import bars_and_lines, panels
from benchmarks.lake.s3_proxy import Trap
from benchmarks.lake.sightings import LOOK_BACK_S, Sightings
from contracts.errors import OperatorMustActError

ALL = (commit_growth, ducklake, freshness, ingest, lake_chaos, maintenance, schema_change)


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.NAME)
def test_each_can_be_asked_for_and_tried_with_small_sizes(module: object) -> None:
    assert module.NAME in program.names()  # type: ignore[attr-defined]
    full, quick = module.FULL, module.QUICK  # type: ignore[attr-defined]
    assert type(full) is type(quick)
    assert full == type(full)()
    assert full != quick


def test_the_page_tells_of_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lake-benchmarks.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(module.NAME for module in ALL)


def test_the_parts_cannot_be_asked_for() -> None:
    assert "lake" not in program.names()


def test_small_sizes_are_only_for_those_that_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["spine", "--quick"])
    assert "has one size" in capsys.readouterr().err


def test_the_full_sizes_are_those_that_the_figures_are_told_for() -> None:
    assert ingest.FULL.events // ingest.FULL.batch_rows // ingest.FULL.origins * ingest.FULL.origins * 200 == 50_000_000
    assert ducklake.FULL.origins * ducklake.FULL.batches == 30_000
    assert len(ducklake.AGGREGATIONS) == 9
    assert schema_change.FULL.batches_per_s >= 1_000
    assert maintenance.FULL.files == commit_growth.FULL.commits == 10_000
    assert lake_chaos.FULL.kills * len(set(lake_chaos.FULL.seeds)) == 400


def test_a_number_of_kills_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lake_chaos.KILLS_VARIABLE, "0")
    with pytest.raises(OperatorMustActError, match="expected a number of kills"):
        lake_chaos.run(lambda _text: None)


def test_a_seed_decides_whom_when_and_where_in_a_commit() -> None:
    planned = kills.plan(1, 200)
    assert planned == kills.plan(1, 200) != kills.plan(2, 200)
    assert {kill.kind for kill in planned} == set(kills.KINDS)
    assert {(kill.stage, kill.store) for kill in planned} == {(s, n) for s in kills.STAGES for n in (0, 1)}
    assert set(kills.STAGES) == set(Trap.__annotations__["stage"].__args__)


def test_durations_of_commits_are_gathered_by_number() -> None:
    commits = commit_growth.Commits("t")
    assert commits.take({}) == 0
    assert commits.take({"commits": {"t": 3}, "recent_commits_ms": {"t": [1.0, 2.0, 3.0], "u": [9.0]}}) == 3
    assert commits.take({"commits": {"t": 5}, "recent_commits_ms": {"t": [2.0, 3.0, 4.0, 5.0]}}) == 5
    assert commits.took_ms == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}
    assert commits.around(3, 4) == [1.0, 2.0, 3.0, 4.0]


@given(st.lists(st.lists(st.integers(0, 99), max_size=30), max_size=30), st.floats(0.0, 40.0))
def test_a_batch_is_visible_from_the_first_look_that_shows_it(looks: list[list[int]], step_s: float) -> None:
    sightings = Sightings(100, begin_s=1_000.0, rate=10.0)
    first: dict[int, float] = {}
    for at, numbers in enumerate(looks):
        now_s = 1_000.0 + (at + 1) * step_s
        from_ms = sightings.look_from_ms(now_s)
        missing = [n for n in range(100) if n not in first and 1_000.0 + n / 10 >= now_s - LOOK_BACK_S]
        assert all(from_ms <= round((1_000.0 + n / 10) * 1_000) for n in missing)
        sightings.take(numbers, now_s)
        first |= {n: now_s for n in numbers if n not in first}
    found = sightings.latencies_ms(1_000.0)
    assert len(found) == 100
    assert set(np.flatnonzero(np.isfinite(found)).tolist()) == set(first)
    assert all(abs(found[n] - (at_s - 1_000.0 - n / 10) * 1_000) < 1e-3 for n, at_s in first.items())
    assert len(sightings.latencies_ms(1_005.0)) == 50


def test_pictures_are_written(tmp_path: Path) -> None:
    lines = {"files": [(0.0, 1.0), (1.0, 2.0)], "none": []}
    bars_and_lines(tmp_path / "bars.png", "events/s", {"1": 10.0, "2": 19.0}, "drain", lines)
    panels(tmp_path / "panels.png", [("a", "s", "ms", lines), ("b", "s", "", {"one": [(0.0, 1.0)]})], dots=True)
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("bars.png", "panels.png"))
