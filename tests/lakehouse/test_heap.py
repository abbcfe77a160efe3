"""What is freed is given back when it is asked for, and only around work on many streams."""

import gc

import psutil
import pytest

from lakehouse import heap

PIECES = 40_000
PIECE_BYTES = 4_096  # below what the C library maps alone


def test_free_memory_is_given_back_around_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(heap, "_trim", lambda: done.append)
    with heap.tidied(heap.STREAMS_MIN):
        done.append("work")
    assert done == [0, "work", 0]


def test_few_streams_are_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(heap, "_trim", lambda: done.append)
    with heap.tidied(heap.STREAMS_MIN - 1):
        done.append("work")
    assert done == ["work"]


def test_the_system_has_back_what_lay_between_pieces_in_use() -> None:
    pieces = [bytes(PIECE_BYTES) for _ in range(PIECES)]
    kept = pieces[:: PIECES // 10]
    full = psutil.Process().memory_info().rss
    del pieces
    gc.collect()
    with heap.tidied(heap.STREAMS_MIN):
        pass
    assert full - psutil.Process().memory_info().rss > PIECES * PIECE_BYTES / 2
    assert len(kept) == 10
