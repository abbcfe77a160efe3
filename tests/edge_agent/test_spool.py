"""The spool after crashes and rot: what was durable is there, what rotted is known by its numbers."""

import contextlib
import random
from pathlib import Path

import msgspec
import pytest

from contracts import ranges
from edge_agent.adapters.disk import FolderDisk
from edge_agent.core.accounts import Count, Wire
from edge_agent.core.codec.sealing import SealedBatch
from edge_agent.core.spool import spool as spool_module
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.identity import FORMAT, Identity, open_spool
from edge_agent.core.spool.record import (
    SEGMENT_HEADER_BYTES,
    BatchRef,
    Checkpoint,
    Cursor,
    Meta,
    Settled,
    decode_cursor,
    encode_cursor,
    frame,
    scan,
    segment_header,
)
from edge_agent.core.spool.segment import PendingBatch, index_name, segment_name
from edge_agent.core.spool.spool import Group, Spool
from edge_agent.errors import SpoolError, SpoolWriteError
from edge_agent.ports import Disk
from tests.edge_agent.worlds import Crash, MemoryDisk

NOW_MS = 10**9
WANTED = Identity("device", 100, {"telemetry": 7}, FORMAT)


def group(number: int, size: int = 20) -> Group:
    """Return the record of ten events and one ledger row."""
    batches = (
        SealedBatch("telemetry", number * 10, 10, 3, bytes([number % 256]) * size),
        SealedBatch("ledger", number, 1, 1, b"L" * 5),
    )
    refs = tuple(BatchRef(b.contract, b.first_seq, b.span, b.rows, len(b.data)) for b in batches)
    counts = (Count("telemetry", "kept", "", "", 3), Count("telemetry", "dropped", "m@1", "filtered", 7))
    next_seq = {"telemetry": number * 10 + 10, "ledger": number + 1}
    return Group(Meta(number, next_seq, {}, refs, counts, Wire(batches=1), sealed_at_ms=number * 1_000), batches)


@pytest.fixture(params=["folder", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return FolderDisk(tmp_path / "spool") if request.param == "folder" else MemoryDisk()


def filled(disk: Disk, records: int) -> Spool:
    spool = open_spool(disk, WANTED)
    for number in range(records):
        spool.append(group(number))
    return spool


def loaded(spool: Spool) -> tuple[list[PendingBatch], list[Damage]]:
    """Return everything that a start finds, with the lake empty."""
    found = [spool.load(segment.number, {}) for segment in spool.segments]
    return [b for one in found for b in one.pending], [d for one in found for d in one.damages]


def numbers(spool: Spool) -> list[int]:
    return [batch.first_seq // 10 for batch in loaded(spool)[0] if batch.contract == "telemetry"]


def held(*numbers: int) -> dict[str, ranges.RangeSet]:
    """Return what a lake that has these records says."""
    return {
        "telemetry": ranges.union((n * 10, n * 10 + 10) for n in numbers),
        "ledger": ranges.union((n, n + 1) for n in numbers),
    }


def rotted(data: bytes, at: int, bit: int = 4) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_what_was_appended_is_found_with_its_epoch(disk: Disk) -> None:
    filled(disk, 3)
    spool = open_spool(disk, Identity("device", 999, {"telemetry": 7}, FORMAT))
    assert spool.epoch == 100
    assert numbers(spool) == [0, 1, 2]
    pending, damages = loaded(spool)
    assert [spool.read(batch) for batch in pending[2:4]] == [b"\1" * 20, b"L" * 5]
    assert (damages, spool.recovered.gaps) == ([], {})
    assert spool.recovered.newest == group(2).meta
    assert spool.counts[1] == Count("telemetry", "kept", "", "", 9)
    assert spool.size_bytes == sum(disk.size(segment_name(segment.number)) for segment in spool.segments)


def test_a_torn_tail_is_cut_off_at_every_byte() -> None:
    whole = segment_header(100) + b"".join(
        frame(group(n).meta, b"".join(b.data for b in group(n).batches)) for n in (0, 1)
    )
    first_end = scan(whole).frames[0].end
    for length in range(SEGMENT_HEADER_BYTES, len(whole)):
        disk = MemoryDisk()
        open_spool(disk, WANTED)
        disk.append(segment_name(1), whole[:length])
        spool = open_spool(disk, WANTED)
        assert numbers(spool) == ([0] if length >= first_end else [])
        assert (loaded(spool)[1], spool.recovered.gaps) == ([], {})
        if length >= first_end:
            assert disk.files[segment_name(1)] == whole[:first_end]
        else:
            assert segment_name(1) not in disk.files
        again = open_spool(disk, WANTED)
        again.append(group(1) if length >= first_end else group(0))
        assert len(loaded(open_spool(disk, WANTED))[0]) == (4 if length >= first_end else 2)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_flipped_bit_costs_no_more_than_the_batch_it_hits(victim: int, finished: bool) -> None:
    clean = MemoryDisk()
    spool = filled(clean, 3)
    if finished:
        spool.finish()
    data = clean.files[segment_name(1)]
    target = scan(data).frames[victim]
    for at in range(target.offset, target.end):
        disk = MemoryDisk(clean.files)
        disk.files[segment_name(1)] = rotted(data, at)
        spool = open_spool(disk, WANTED)
        pending, damages = loaded(spool)
        # The index knows the places of all batches, so only the one that lies there is not what it was.
        assert (numbers(spool), damages, spool.recovered.gaps) == ([0, 1, 2], [], {})
        assert spool.recovered.newest == group(2).meta
        bad = [b for b in pending if spool.read(b) not in (bytes([b.first_seq // 10]) * 20, b"L" * 5)]
        assert len(bad) == (at >= target.body_offset)
        for batch in bad:
            damage = spool.damage(batch)
            assert (damage.contract, damage.first_seq, damage.span) == (batch.contract, batch.first_seq, batch.span)
            assert damage.rows == (3 if batch.contract == "telemetry" else 1)


@pytest.mark.parametrize("finished", [False, True])
def test_an_index_that_rots_is_read_from_the_segment(finished: bool) -> None:
    clean = MemoryDisk()
    spool = filled(clean, 3)
    if finished:
        spool.finish()
    index = clean.files[index_name(1)]
    for at in range(len(index)):
        disk = MemoryDisk(clean.files)
        disk.files[index_name(1)] = rotted(index, at)
        spool = open_spool(disk, WANTED)
        assert (numbers(spool), loaded(spool)[1], spool.recovered.gaps) == ([0, 1, 2], [], {})
        assert spool.counts[1] == Count("telemetry", "kept", "", "", 9)


def test_without_its_index_a_rotten_record_is_known_by_its_neighbours() -> None:
    disk = MemoryDisk()
    filled(disk, 3)
    name = segment_name(1)
    disk.files[name] = rotted(disk.files[name], scan(disk.files[name]).frames[1].offset + 30)
    del disk.files[index_name(1)]
    spool = open_spool(disk, WANTED)
    assert spool.recovered.gaps == {"telemetry": ((10, 20),), "ledger": ((1, 2),)}
    assert spool.gaps({}) == (Damage("telemetry", 10, 10, None), Damage("ledger", 1, 1, None))
    assert spool.gaps(held(1)) == ()


def test_a_record_that_rotted_in_both_files_of_a_finished_segment_is_known_by_its_summary() -> None:
    disk = MemoryDisk()
    filled(disk, 3).finish()
    for name in (segment_name(1), index_name(1)):
        at = disk.files[name].index(b"FLRC", 20)  # the second frame's magic
        disk.files[name] = rotted(disk.files[name], at)
    spool = open_spool(disk, WANTED)
    assert numbers(spool) == [0, 2]
    assert loaded(spool)[1] == [Damage("telemetry", 10, 10, None), Damage("ledger", 1, 1, None)]
    assert spool.counts[1] == Count("telemetry", "kept", "", "", 9)


def test_what_was_settled_is_neither_sent_nor_settled_again(disk: Disk) -> None:
    spool = filled(disk, 3)
    again = group(3)
    tombstone = SealedBatch("telemetry", 10, 10, 0, b"T")
    ref = BatchRef("telemetry", 10, 10, 0, 1)
    meta = msgspec.structs.replace(
        again.meta, batches=(*again.meta.batches, ref), settled=(Settled("telemetry", 10, 20),)
    )
    spool.append(Group(meta, (*again.batches, tombstone)))
    for _ in range(2):
        spool = open_spool(disk, WANTED)
        pending, damages = loaded(spool)
        assert [(b.first_seq, b.rows) for b in pending if b.contract == "telemetry"] == [
            (0, 3), (20, 3), (30, 3), (10, 0),
        ]  # fmt: skip
        assert damages == []
        assert not spool.is_open(Damage("telemetry", 10, 10, 3), {})


def test_only_whole_committed_segments_are_deleted(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 300)
    spool = filled(disk, 6)
    first = [batch for batch in loaded(spool)[0] if batch.segment == 1]
    records = {batch.first_seq // 10 for batch in first if batch.contract == "telemetry"}
    assert len(spool.segments) > 2
    before = spool.size_bytes
    assert spool.free(held(*records) | {"ledger": ()}, NOW_MS) == ()
    assert spool.free(held(*records), NOW_MS) == (1,)
    assert segment_name(1) not in disk.names()
    assert spool.size_bytes < before
    assert spool.counts[0] == Count("telemetry", "dropped", "m@1", "filtered", 42)
    again = open_spool(disk, WANTED)
    assert again.recovered.gaps == {}
    assert (again.counts, again.wire, again.size_bytes) == (spool.counts, spool.wire, spool.size_bytes)
    assert numbers(again) == [number for number in range(6) if number not in records]


def test_the_last_segment_goes_once_it_takes_no_more_records(disk: Disk) -> None:
    spool = filled(disk, 2)
    assert spool.free(held(0, 1), NOW_MS) == ()
    spool.finish()
    assert spool.free(held(0, 1), NOW_MS) == (1,)
    assert set(disk.names()) - {"lock"} == {"cursor.json", "spool.json"}
    again = open_spool(disk, WANTED)
    assert (again.observed, again.recovered.held["telemetry"], again.size_bytes) == (
        group(1).meta.next_seq,
        ((0, 20),),
        0,
    )
    assert again.counts == spool.counts


@pytest.mark.parametrize("step", range(6))
def test_a_crash_within_a_deletion_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 300)
    disk = MemoryDisk()
    spool = filled(disk, 6)
    counts = spool.counts
    disk.crash_after = step
    with contextlib.suppress(Crash):
        spool.free(held(0, 1, 2, 3), NOW_MS)
    disk.crash_after = None
    disk.cut_power()
    again = open_spool(disk, WANTED)
    assert (again.counts, again.recovered.gaps) == (counts, {})
    assert set(numbers(again)) >= {4, 5}


@pytest.mark.parametrize("step", range(12))
def test_a_crash_within_a_finish_or_the_start_after_it_costs_nothing(step: int) -> None:
    disk = MemoryDisk()
    spool = filled(disk, 3)
    disk.crash_after = step
    with contextlib.suppress(Crash):
        spool.finish()
        open_spool(disk, WANTED).append(group(3))
    disk.crash_after = None
    disk.cut_power()
    again = open_spool(disk, WANTED)
    found = numbers(again)
    assert found in ([0, 1, 2], [0, 1, 2, 3])
    assert (loaded(again)[1], again.recovered.gaps) == ([], {})
    assert again.counts[1].count == 3 * len(found)


def test_a_start_reads_the_ends_of_finished_segments_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BATCHES", 8)
    disk = MemoryDisk()
    filled(disk, 200).finish()
    reads: list[int] = []
    whole = disk.read

    def counted(name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = whole(name, offset, length)
        reads.append(len(data))
        return data

    monkeypatch.setattr(disk, "read", counted)
    spool = open_spool(disk, WANTED)
    assert len(spool.segments) == 50
    assert sum(reads) / len(spool.segments) < 700
    monkeypatch.undo()
    assert numbers(spool) == list(range(200))


def test_the_spool_of_another_device_or_source_is_refused(disk: Disk) -> None:
    filled(disk, 1)
    for other in (Identity("x", 1, {"telemetry": 7}, FORMAT), Identity("device", 1, {"telemetry": 8}, FORMAT)):
        with pytest.raises(SpoolError, match="spool_dir of its own"):
            open_spool(disk, other)


def test_a_source_that_joins_later_is_remembered(disk: Disk) -> None:
    filled(disk, 1)
    open_spool(disk, Identity("device", 1, {"clicks": 3}, FORMAT))
    assert open_spool(disk, WANTED).epoch == 100
    with pytest.raises(SpoolError, match="spool_dir of its own"):
        open_spool(disk, Identity("device", 1, {"clicks": 4}, FORMAT))


def test_the_spool_of_an_older_agent_is_refused(disk: Disk) -> None:
    disk.replace("spool.json", b'{"device":"device","contract":"telemetry","source_crc32":7,"epoch":100}')
    with pytest.raises(SpoolError, match="format 1, this agent writes 2: drain it"):
        open_spool(disk, WANTED)


@pytest.mark.parametrize("finished", [False, True])
def test_an_index_whose_segment_is_gone_still_holds_its_numbers(finished: bool) -> None:
    disk = MemoryDisk()
    spool = filled(disk, 3)
    if finished:
        spool.finish()
    del disk.files[segment_name(1)]
    again = open_spool(disk, WANTED)
    assert again.observed == group(2).meta.next_seq
    assert numbers(again) == [0, 1, 2]
    for batch in loaded(again)[0]:
        assert again.read(batch) is None
        assert again.damage(batch).rows == batch.rows
    assert open_spool(disk, WANTED).observed == group(2).meta.next_seq


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    first = FolderDisk(tmp_path)
    with pytest.raises(SpoolError, match="another process has it open"):
        FolderDisk(tmp_path)
    first.close()
    FolderDisk(tmp_path).close()


def test_a_spool_without_its_identity_is_never_started_anew(disk: Disk) -> None:
    filled(disk, 1)
    disk.delete("spool.json")
    with pytest.raises(SpoolError, match=r"no spool\.json"):
        open_spool(disk, WANTED)


def test_a_full_disk_keeps_the_group_for_another_try() -> None:
    disk = MemoryDisk()
    spool = filled(disk, 1)
    for after in range(5):
        disk.fail_after = after
        with pytest.raises(SpoolWriteError, match="free some disk"):
            spool.append(group(1))
        disk.fail_after = None
    assert len(spool.append(group(1))) == 2
    again = open_spool(disk, WANTED)
    assert numbers(again) == [0, 1]
    assert (again.recovered.gaps, again.counts) == ({}, spool.counts)


def test_tries_on_a_full_disk_leave_no_files_behind() -> None:
    disk = MemoryDisk()
    spool = open_spool(disk, WANTED)
    names = sorted(disk.names())
    disk.capacity_bytes = sum(map(len, disk.files.values())) + SEGMENT_HEADER_BYTES  # the header of one file of two
    for _ in range(5):
        with pytest.raises(SpoolWriteError):
            spool.append(group(0))
        assert sorted(disk.names()) == names
    disk.capacity_bytes = None
    spool.append(group(0))
    assert numbers(open_spool(disk, WANTED)) == [0]


def test_a_rotten_cursor_is_said_not_guessed() -> None:
    newest = Checkpoint(group(1).meta, (Count("telemetry", "kept", "", "", 3),), Wire(1))
    cursor = Cursor(newest, {"telemetry": ((0, 10),)}, (4,))
    data = encode_cursor(cursor)
    assert decode_cursor(data) == cursor
    for at in range(len(data)):
        assert decode_cursor(rotted(data, at, 0)) in (None, cursor)


def junk(rng: random.Random) -> bytes:
    return rng.choice([b"", b"FLRC", rng.randbytes(rng.randint(1, 40))])


def test_scanning_finds_whole_frames_among_anything() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        frames = [frame(group(n).meta, rng.randbytes(rng.randint(0, 60))) for n in range(4)]
        data = segment_header(1) + b"".join(part for entry in frames for part in (junk(rng), entry)) + junk(rng)
        assert [entry.meta.number for entry in scan(data).frames] == [0, 1, 2, 3], f"seed={seed}"


@pytest.mark.parametrize("finished", [False, True])
def test_whatever_rots_in_both_files_every_number_is_there_or_named(finished: bool) -> None:
    for seed in range(60):
        rng = random.Random(seed)
        disk = MemoryDisk()
        spool = filled(disk, 12)
        if finished:
            spool.finish()
        for name in (segment_name(1), index_name(1)):
            data = disk.files[name]
            for _ in range(rng.randint(0, 6)):
                data = rotted(data, rng.randrange(SEGMENT_HEADER_BYTES, len(data)), rng.randrange(8))
            disk.files[name] = data
        spool = open_spool(disk, WANTED)
        pending, damages = loaded(spool)
        there = [(b.first_seq, b.end_seq) for b in pending if b.contract == "telemetry"]
        gone = [(d.first_seq, d.end_seq) for d in (*damages, *spool.gaps({})) if d.contract == "telemetry"]
        assert sum(end - first for first, end in there + gone) == spool.observed["telemetry"], f"seed={seed}"
        assert ranges.union(there + gone) == ((0, spool.observed["telemetry"]),), f"seed={seed}"
