"""The lakehouse's benchmarks with small sizes, over real parts: each comes to its figures, and rows are right.

`freshness` needs the whole stack and a broker's devices; `make bench NAME=freshness QUICK=1` tries it.
"""

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import commit_growth, ducklake, ingest, lake_chaos, maintenance, schema_change

pytestmark = pytest.mark.stack

KEYS = {
    ingest: {"drain_events_per_s_one", "restart_s", "memory_mb"},
    commit_growth: {"commit_growth_ratio"},
    ducklake: {"insert_s", "aggregate_s", "checkpoint_s"},
    maintenance: {"compaction_mb_per_s_core", "retries_per_commit"},
    schema_change: {"schema_changes", "schema_lost", "schema_wrong", "schema_visible_p99_ms", "restarts"},
    lake_chaos: {"chaos_kills", "chaos_lost", "chaos_doubled"},
}
NOTHING = ("schema_lost", "schema_doubled", "schema_wrong", "restarts", "chaos_lost", "chaos_doubled", "chaos_strange")


@pytest.mark.parametrize("module", KEYS, ids=lambda module: module.NAME)
def test_it_comes_to_its_figures(module: ModuleType, tmp_path: Path) -> None:
    said: list[str] = []
    measured = module.run(said.append, module.QUICK, tmp_path)
    assert measured.name == module.NAME
    assert KEYS[module] <= measured.figures.keys()
    assert {name: measured.figures[name] for name in NOTHING if measured.figures.get(name)} == {}
    assert (tmp_path / f"{module.NAME}.png").stat().st_size > 5_000
    assert said
