"""What waits on the disk alone: taken in when there is room for it, left there again when there is too much."""

import errno

import pytest

from edge_agent import backlog
from edge_agent.backlog import LOAD_RETRY_S, Backlog
from edge_agent.core.spool import spool as spools
from edge_agent.core.spool.identity import open_spool
from edge_agent.core.spool.spool import Spool
from edge_agent.core.uplink.sending import SendWindow
from tests.edge_agent.test_spool import WANTED, group, held
from tests.edge_agent.worlds import MemoryDisk

RECORDS = 12


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> MemoryDisk:
    """Four segments of three records, each of two batches."""
    monkeypatch.setattr(spools, "SEGMENT_BATCHES", 6)
    disk = MemoryDisk()
    spool = open_spool(disk, WANTED)
    for number in range(RECORDS):
        spool.append(group(number))
    spool.finish()
    return disk


def opened(disk: MemoryDisk, said: list[str] | None = None) -> tuple[Spool, SendWindow, Backlog]:
    spool, window = open_spool(disk, WANTED), SendWindow()
    return spool, window, Backlog(spool, window, (said if said is not None else []).append)


def test_a_segment_is_taken_in_only_when_the_window_has_few(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BATCHES_MIN", 7)
    _, window, waiting = opened(disk)
    assert waiting.segments == [1, 2, 3, 4]
    assert waiting.due_s() is not None
    assert waiting.load(0.0, {}) == ()
    assert (waiting.segments, len(window)) == ([3, 4], 12)
    assert waiting.due_s() is None
    window.commit(held(0, 1, 2))
    assert waiting.due_s() is not None


def test_what_the_lake_holds_is_passed_over(disk: MemoryDisk) -> None:
    spool, window, waiting = opened(disk)
    spool.free(held(*range(6)), 0)
    waiting.keep_what_is_owed()
    assert waiting.segments == [3, 4]
    waiting.load(0.0, held(*range(11)))
    assert len(window) == 2


def test_a_disk_that_does_not_read_is_asked_again_later(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    _, window, waiting = opened(disk, said)
    with monkeypatch.context() as patch:

        def broken(*_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(MemoryDisk, "read", broken)
        waiting.load(0.0, {})
    assert (waiting.segments[0], len(window), waiting.due_s()) == (1, 0, LOAD_RETRY_S)
    assert said == ["spool: segment 1 cannot be read: Input/output error: trying again"]
    waiting.load(LOAD_RETRY_S / 2, {})
    assert len(window) == 0
    waiting.load(LOAD_RETRY_S, {})
    assert len(window) == 2 * RECORDS


def test_the_oldest_segments_leave_memory_and_the_open_one_stays(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, window, waiting = opened(disk)
    waiting.load(0.0, {})
    window.add(spool.append(group(RECORDS)))
    monkeypatch.setattr(backlog, "LOADED_BATCHES_MAX", 14)
    waiting.shed()
    assert (waiting.segments, window.segments()) == ([1, 2], {3, 4, 5})
    monkeypatch.setattr(backlog, "LOADED_BATCHES_MAX", 0)
    waiting.shed()
    assert (waiting.segments, window.segments()) == ([1, 2, 3, 4], {5})
