"""The spool after crashes and rot: what was durable is there, what rotted is known by its numbers."""

import random
from pathlib import Path

import pytest

from contracts import ranges
from edge_agent.adapters.disk import FolderDisk
from edge_agent.core import spool as spool_module
from edge_agent.core.accounts import Count, Wire
from edge_agent.core.record import (
    SEGMENT_HEADER_BYTES,
    BatchRef,
    Cursor,
    Meta,
    decode_cursor,
    encode_cursor,
    frame,
    scan,
    segment_header,
)
from edge_agent.core.recovery import Identity, Recovered, segment_name
from edge_agent.core.sealing import SealedBatch
from edge_agent.core.spool import Group, Spool, open_spool
from edge_agent.errors import SpoolError, SpoolWriteError
from edge_agent.ports import Disk
from tests.edge_agent.worlds import MemoryDisk

WANTED = Identity("device", "telemetry", 7, 100)


def group(number: int, size: int = 20) -> Group:
    """Return the record of ten events and one ledger row."""
    batches = (
        SealedBatch("telemetry", number * 10, 10, 3, bytes([number % 256]) * size),
        SealedBatch("ledger", number, 1, 1, b"L" * 5),
    )
    refs = tuple(BatchRef(b.contract, b.first_seq, b.span, b.rows, len(b.data)) for b in batches)
    counts = (Count("telemetry", "kept", "", "", 3), Count("telemetry", "dropped", "m@1", "filtered", 7))
    next_seq = {"telemetry": number * 10 + 10, "ledger": number + 1}
    return Group(Meta(number, next_seq, (), refs, counts, Wire(batches=1)), batches)


@pytest.fixture(params=["folder", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return FolderDisk(tmp_path / "spool") if request.param == "folder" else MemoryDisk()


def filled(disk: Disk, records: int) -> Spool:
    spool = open_spool(disk, WANTED)
    for number in range(records):
        spool.append(group(number))
    return spool


def numbers(recovered: Recovered) -> list[int]:
    return [batch.first_seq // 10 for batch in recovered.pending if batch.contract == "telemetry"]


def test_what_was_appended_is_found_with_its_epoch(disk: Disk) -> None:
    filled(disk, 3)
    spool = open_spool(disk, Identity("device", "telemetry", 7, 999))
    assert spool.epoch == 100
    assert numbers(spool.recovered) == [0, 1, 2]
    assert [spool.read(batch) for batch in spool.recovered.pending[2:4]] == [b"\1" * 20, b"L" * 5]
    assert spool.recovered.newest == group(2).meta
    assert spool.recovered.missing == {}
    assert spool.counts[1] == Count("telemetry", "kept", "", "", 9)


def test_a_torn_tail_is_cut_off_at_every_byte() -> None:
    whole = segment_header(100) + b"".join(
        frame(group(n).meta, b"".join(b.data for b in group(n).batches)) for n in (0, 1)
    )
    first_end = scan(whole).frames[0].end
    for length in range(SEGMENT_HEADER_BYTES, len(whole)):
        disk = MemoryDisk()
        open_spool(disk, WANTED)
        disk.append(segment_name(1), whole[:length])
        recovered = open_spool(disk, WANTED).recovered
        assert numbers(recovered) == ([0] if length >= first_end else [])
        assert recovered.missing == {}
        assert disk.files[segment_name(1)] == whole[: first_end if length >= first_end else SEGMENT_HEADER_BYTES]
        again = open_spool(disk, WANTED)
        again.append(group(1) if length >= first_end else group(0))
        assert len(open_spool(disk, WANTED).recovered.pending) == (4 if length >= first_end else 2)


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_flipped_bit_costs_exactly_its_record(victim: int) -> None:
    clean = MemoryDisk()
    filled(clean, 3)
    data = clean.files[segment_name(1)]
    target = scan(data).frames[victim]
    for at in range(target.offset, target.end):
        disk = MemoryDisk(clean.files)
        disk.files[segment_name(1)] = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        spool = open_spool(disk, WANTED)
        assert numbers(spool.recovered) == [number for number in range(3) if number != victim]
        assert spool.recovered.missing == {
            "telemetry": ((victim * 10, victim * 10 + 10),),
            "ledger": ((victim, victim + 1),),
        }
        assert [meta.number for meta in spool.recovered.damaged] == [victim]
        assert spool.recovered.newest == group(2).meta  # numbers go on after it, even if it was the last
        assert spool.is_damaged


def test_without_its_index_a_rotten_record_is_known_by_its_neighbours() -> None:
    disk = MemoryDisk()
    filled(disk, 3)
    data = bytearray(disk.files[segment_name(1)])
    data[scan(bytes(data)).frames[1].offset + 30] ^= 1
    disk.files[segment_name(1)] = bytes(data)
    del disk.files["segment-00000001.idx"]
    recovered = open_spool(disk, WANTED).recovered
    assert recovered.missing == {"telemetry": ((10, 20),), "ledger": ((1, 2),)}
    assert recovered.damaged == ()


def test_only_whole_committed_segments_are_deleted(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 300)
    spool = open_spool(disk, WANTED)
    pending = [batch for number in range(6) for batch in spool.append(group(number))]
    first = [batch for batch in pending if batch.segment == 1]
    assert max(batch.segment for batch in pending) > 1
    before = spool.size_bytes
    spool.commit(first[:-1])
    assert segment_name(1) in disk.names()
    spool.commit(first[-1:])
    assert segment_name(1) not in disk.names()
    assert spool.size_bytes < before
    assert spool.counts[0] == Count("telemetry", "dropped", "m@1", "filtered", 42)
    again = open_spool(disk, WANTED)
    assert again.recovered.missing == {}
    assert again.counts == spool.counts
    assert again.wire == spool.wire
    assert len(again.recovered.pending) == len(pending) - len(first)


def test_the_spool_of_another_device_or_source_is_refused(disk: Disk) -> None:
    filled(disk, 1)
    for other in (
        Identity("x", "telemetry", 7, 1),
        Identity("device", "clicks", 7, 1),
        Identity("device", "telemetry", 8, 1),
    ):
        with pytest.raises(SpoolError, match="spool_dir of its own"):
            open_spool(disk, other)


def test_a_spool_without_its_identity_is_never_started_anew(disk: Disk) -> None:
    filled(disk, 1)
    disk.delete("spool.json")
    with pytest.raises(SpoolError, match=r"no spool\.json"):
        open_spool(disk, WANTED)


def test_a_full_disk_keeps_the_group_for_another_try() -> None:
    disk = MemoryDisk()
    spool = filled(disk, 1)
    for after in range(3):
        disk.fail_after = after
        with pytest.raises(SpoolWriteError, match="free some disk"):
            spool.append(group(1))
        disk.fail_after = None
    assert len(spool.append(group(1))) == 2
    recovered = open_spool(disk, WANTED).recovered
    assert numbers(recovered) == [0, 1]
    assert recovered.missing == {}


def test_a_rotten_cursor_is_said_not_guessed() -> None:
    cursor = Cursor(group(1).meta, {"telemetry": ((0, 10),)}, (Count("telemetry", "kept", "", "", 3),), Wire(1), (4,))
    data = encode_cursor(cursor)
    assert decode_cursor(data) == cursor
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert decode_cursor(flipped) in (None, cursor)


def junk(rng: random.Random) -> bytes:
    return rng.choice([b"", b"FLRC", rng.randbytes(rng.randint(1, 40))])


def test_scanning_finds_whole_frames_among_anything() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        frames = [frame(group(n).meta, rng.randbytes(rng.randint(0, 60))) for n in range(4)]
        data = segment_header(1) + b"".join(part for entry in frames for part in (junk(rng), entry)) + junk(rng)
        assert [entry.meta.number for entry in scan(data).frames] == [0, 1, 2, 3], f"seed={seed}"


def test_ranges_of_missing_are_exact_over_many_faults() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        disk = MemoryDisk()
        filled(disk, 12)
        data = bytearray(disk.files[segment_name(1)])
        frames = scan(bytes(data)).frames
        victims = {rng.randrange(12) for _ in range(3)}
        for victim in victims:
            data[rng.randrange(frames[victim].offset, frames[victim].end)] ^= 1 << rng.randrange(8)
        disk.files[segment_name(1)] = bytes(data)
        found = open_spool(disk, WANTED).recovered.missing["telemetry"]
        assert found == ranges.union((v * 10, v * 10 + 10) for v in victims), f"seed={seed}"
