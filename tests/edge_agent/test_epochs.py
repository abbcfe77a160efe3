"""An epoch is never one that was used before: whatever the clock says, and whoever empties the spool's folder."""

from pathlib import Path

import msgspec
import pytest

from contracts.watermark import AckDocument, Watermark
from edge_agent.adapters.epochs import EpochFile
from edge_agent.core.spool.identity import FORMAT, IDENTITY_FILE, Identity, open_spool
from edge_agent.core.spool.recovery import CURSOR_FILE
from edge_agent.errors import SpoolError
from tests.edge_agent.test_spool import group, held
from tests.edge_agent.worlds import Crash, MemoryDisk

WANTED = Identity("device", 1_000, {}, FORMAT)
NOW_MS = 5_000_000


def used(records: int) -> MemoryDisk:
    """Return the disk of a spool in epoch 1,000 that has some records."""
    disk = MemoryDisk()
    spool = open_spool(disk, WANTED)
    for number in range(records):
        spool.append(group(number))
    return disk


def epoch_of(disk: MemoryDisk) -> int:
    epoch: int = msgspec.json.decode(disk.files[IDENTITY_FILE])["epoch"]
    return epoch


def test_the_next_epoch_is_the_clock_or_after_the_largest_known(tmp_path: Path) -> None:
    spool_dir = tmp_path / "spool"
    assert EpochFile(spool_dir).next_after(NOW_MS) == 5_000
    EpochFile(spool_dir).note(7_000)
    assert EpochFile(spool_dir).next_after(NOW_MS) == 7_001
    assert EpochFile(spool_dir).next_after(9_000_000) == 9_000
    EpochFile(spool_dir).note(6_000)
    assert EpochFile(spool_dir).next_after(NOW_MS) == 7_001


def test_what_the_lake_has_seen_is_known_too(tmp_path: Path) -> None:
    epochs = EpochFile(tmp_path / "spool")
    epochs.note(100, AckDocument("device", (Watermark("device", "telemetry", 8_000, (), 1, 0),)))
    assert EpochFile(tmp_path / "spool").next_after(NOW_MS) == 8_001


def test_without_its_file_the_clock_decides_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "spool.epoch").write_text("十")
    epochs = EpochFile(tmp_path / "spool")
    assert epochs.next_after(NOW_MS) == 5_000
    assert "expected a number" in caplog.text
    gone = EpochFile(tmp_path / "gone" / "spool")
    gone.note(3)
    assert "takes its epoch from the clock alone" in caplog.text


@pytest.mark.parametrize("left", [{IDENTITY_FILE}, {IDENTITY_FILE, CURSOR_FILE}])
@pytest.mark.parametrize("now", [900, 2_000])
def test_an_emptied_spool_begins_a_new_epoch_and_says_which_is_gone(left: set[str], now: int) -> None:
    disk = MemoryDisk({name: data for name, data in used(3).files.items() if name in left})
    spool = open_spool(disk, msgspec.structs.replace(WANTED, epoch=now))
    assert (spool.epoch, spool.recovered.emptied_epoch) == (max(1_001, now), 1_000)
    assert spool.observed == {}
    again = open_spool(disk, WANTED)
    assert (again.epoch, again.recovered.emptied_epoch) == (spool.epoch, None)


def test_a_spool_that_never_had_a_record_goes_on_in_its_epoch() -> None:
    disk = used(0)
    for now in (1_000, 2_000):
        spool = open_spool(disk, msgspec.structs.replace(WANTED, epoch=now))
        assert (spool.epoch, spool.recovered.emptied_epoch) == (1_000, None)


def test_a_spool_whose_segments_are_all_in_the_lake_is_not_an_emptied_one() -> None:
    disk = used(3)
    spool = open_spool(disk, WANTED)
    spool.finish()
    assert spool.free(held(0, 1, 2), 0)
    again = open_spool(disk, WANTED)
    assert (again.epoch, again.recovered.emptied_epoch, again.segments) == (1_000, None, ())


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_within_a_creation_is_a_creation_at_the_next_start(steps: int) -> None:
    disk = MemoryDisk()
    disk.crash_after = steps
    try:
        open_spool(disk, WANTED)
    except Crash:
        disk.crash_after = None
    disk.crash_after = None
    spool = open_spool(disk, WANTED)
    assert (spool.epoch, spool.recovered.emptied_epoch) == (1_000, None)


@pytest.mark.parametrize("steps", range(4))
def test_a_crash_within_the_change_of_epoch_never_goes_back_to_the_old_one(steps: int) -> None:
    disk = MemoryDisk({IDENTITY_FILE: used(2).files[IDENTITY_FILE]})
    disk.crash_after = steps
    try:
        open_spool(disk, WANTED)
    except Crash:
        assert epoch_of(disk) in (1_000, 1_001)
    disk.crash_after = None
    assert open_spool(disk, WANTED).epoch > 1_000


def test_a_cursor_that_speaks_of_records_is_not_taken_for_a_creation() -> None:
    disk = used(2)
    with pytest.raises(SpoolError, match=f"no {IDENTITY_FILE}"):
        open_spool(MemoryDisk({CURSOR_FILE: disk.files[CURSOR_FILE]}), WANTED)
