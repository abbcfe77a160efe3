"""The benchmark of swaps works on a few: every event is scored, and the figures are there."""

import pytest

from benchmarks import edge_swap

pytestmark = pytest.mark.stack  # it starts a process in the device's environment


def test_a_few_swaps_score_every_event() -> None:
    figures, how = edge_swap.measure(lambda _: None, swaps=4, warm_up=2)
    assert figures["swap_unscored"] == 0
    assert set(figures) == {"swap_pause_ms", "swap_unscored", "swap_memory_mb"}
    assert how["swaps"] == 4
    assert how["events"] > 4 * 3 * edge_swap.CHUNK_EVENTS
    assert how["rules and models in the ledger"] == 2  # both bundles' models decided
    assert len(how["plot"]["pss"]) == 4
