"""Files that are written on, rotated, packed and cut while they are read, with restarts at any event."""

import csv
import errno
import gzip
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.adapters import followed_file, source_files
from edge_agent.adapters.disk import FolderDisk
from edge_agent.adapters.file_marks import MARKS_MAX
from edge_agent.adapters.followed_file import FollowedFile
from edge_agent.adapters.opening import open_file
from edge_agent.adapters.source_files import FileReader, open_source
from edge_agent.config import FileSource
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.events import Reader
from edge_agent.core.refusal import EVENT_BYTES_MAX
from edge_agent.core.sources.csv_records import CsvRecords
from edge_agent.errors import SourceError
from tests.edge_agent.plant import CONTRACTS, lines_of, reading


class Follower:
    """A source that can be started again at any event."""

    def __init__(self, folder: Path, name: str = "events.jsonl") -> None:
        self.path = folder / name
        self._disk = FolderDisk(folder / "spool")
        self.found: list[bytes] = []
        self.path.touch()
        self._open()
        self.source.skip(0)  # as the agent does before it reads

    def _open(self) -> None:
        source = open_file(FileSource("log", str(self.path), "clicks", follow=True), self._disk)
        assert isinstance(source, FileReader)
        self.source = source

    def restart(self, at: int | None = None) -> None:
        """Go on from event `at`, the first that is not known to be durable."""
        self.source.close()
        del self.found[at if at is not None else len(self.found) :]
        self._open()
        assert self.source.skip(len(self.found)) == len(self.found)

    def read(self, at_once: int = 3) -> list[bytes]:
        """Return what is new, up to the end."""
        begin = len(self.found)
        for _ in range(20):
            while part := self.source.read(at_once):
                self.found += part
        return self.found[begin:]

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def rotate(self, suffix: str = ".1") -> Path:
        old = self.path.with_name(self.path.name + suffix)
        self.path.rename(old)
        return old

    def __enter__(self) -> "Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    with Follower(tmp_path) as follower:
        yield follower


def test_a_rename_and_a_new_file_lose_nothing_even_what_the_writer_adds_after_the_rename(follower: Follower) -> None:
    follower.write(b"1\n2\n")
    assert follower.read() == [b"1", b"2"]
    old = follower.rotate()
    with old.open("ab") as file:
        file.write(b"3\n4")
    assert follower.read() == [b"3"]
    follower.write(b"5\n")
    assert follower.read() == [b"4", b"5"]
    follower.write(b"6\n")
    assert follower.read() == [b"6"]
    assert follower.source.trouble is None


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_restart_goes_on_in_the_file_that_its_events_are_in(follower: Follower, at: int, packed: str) -> None:
    follower.write(b"a1\na2\n")
    follower.read()
    old = follower.rotate()
    follower.write(b"b1\nb2\n")
    follower.read()
    old.rename(old.with_suffix(".2"))
    newer = follower.rotate()
    follower.write(b"c1\nc2\n")
    follower.read()
    for file in (old.with_suffix(".2"), newer):
        pack(file, packed)
    follower.restart(at)
    follower.read()
    assert follower.found == [b"a1", b"a2", b"b1", b"b2", b"c1", b"c2"]


def pack(file: Path, ending: str) -> None:
    """Do what a rotation does: pack a file, keep its time, remove it."""
    if not ending:
        return
    packed = file.with_name(file.name + ending)
    data = file.read_bytes()
    packed.write_bytes(gzip.compress(data) if ending == ".gz" else zstandard.ZstdCompressor().compress(data))
    shutil.copystat(file, packed)
    file.unlink()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_files_that_came_and_went_while_nobody_looked_are_read_too(follower: Follower, packed: str) -> None:
    follower.write(b"0\n")
    follower.read()
    follower.source.close()
    for number in range(1, 4):
        old = follower.rotate(f"-2026010{number}")
        follower.write(b"%d\n" % number)
        os.utime(old, ns=(number * 10**9, number * 10**9))
    (follower.path.parent / "events.jsonl.bak").write_bytes(b"not ours\n")
    (follower.path.parent / "other.jsonl.1").write_bytes(b"not ours\n")
    for number in range(1, 4):
        pack(follower.path.with_name(f"events.jsonl-2026010{number}"), packed)
    follower._open()
    assert follower.source.skip(1) == 1
    follower.read()
    assert follower.found == [b"0", b"1", b"2", b"3"]


def test_files_that_were_rotated_before_the_first_start_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl.1").write_bytes(b"old\n")
    os.utime(tmp_path / "events.jsonl.1", ns=(1, 1))
    with Follower(tmp_path) as follower:
        follower.write(b"1\n")
        follower.read()
        follower.rotate(".0")
        follower.write(b"2\n")
        follower.read()
        assert follower.found == [b"1", b"2"]


def test_a_file_that_is_gone_is_said(follower: Follower) -> None:
    follower.write(b"1\n2\n")
    follower.read()
    follower.rotate().unlink()
    follower.write(b"3\n")
    follower.read()
    follower.restart(2)
    follower.read()
    assert follower.found == [b"1", b"2", b"3"]
    with pytest.raises(SourceError, match="events from number 0 on: it is no longer there"):
        follower.restart(1)


def test_the_same_inode_with_another_beginning_is_another_file(follower: Follower) -> None:
    follower.write(b"one\n")
    follower.read()
    follower.path.write_bytes(b"other\n")  # the same inode
    with pytest.raises(SourceError, match="no longer there"):
        follower.restart()


@pytest.mark.parametrize("after", [b"x\n", b"longer than it was before\nand more\n"])
def test_a_file_that_was_cut_is_read_anew_and_that_is_said(follower: Follower, after: bytes) -> None:
    follower.write(b"1\n2\n3\npar")
    follower.read()
    shutil.copy(follower.path, follower.path.with_name("events.jsonl.1"))
    follower.path.write_bytes(after)
    follower.read()
    assert follower.found == [b"1", b"2", b"3", b"par", *after.split(b"\n")[:-1]]
    assert follower.source.trouble is not None
    assert "no copytruncate" in follower.source.trouble
    follower.write(b"4\n")
    assert follower.read() == [b"4"]


def test_only_the_newest_files_are_remembered(follower: Follower) -> None:
    for number in range(MARKS_MAX + 2):
        follower.write(b"%d\n" % number)
        follower.read()
        follower.rotate(f".{number}")
    follower.path.touch()
    with pytest.raises(SourceError, match="events before number 2"):
        follower.restart(1)


def test_marks_that_cannot_be_read_are_said(follower: Follower) -> None:
    (follower.path.parent / "spool" / "source-log.json").write_bytes(b"[{")
    with pytest.raises(SourceError, match="places of a followed file"):
        follower.restart()


def test_a_disk_that_takes_no_mark_makes_the_source_wait(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    follower.write(b"1\n")
    follower.read()
    follower.rotate()
    follower.write(b"2\n3\n")
    with monkeypatch.context() as patch:
        patch.setattr(FolderDisk, "replace", no_room)
        assert follower.read() == []
        assert "No space left" in (follower.source.trouble or "")
    assert follower.read() == [b"2", b"3"]
    assert follower.source.trouble is None
    follower.restart(1)
    assert follower.read() == [b"2", b"3"]


def test_a_file_that_is_renamed_as_it_is_turned_to_is_looked_for_again(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.write(b"1\n")
    follower.read()
    old = follower.rotate()
    follower.write(b"2\n")
    with monkeypatch.context() as patch:
        patch.setattr(FollowedFile, "_next_file", lambda _: old.with_name("gone"))
        assert follower.read() == []
    assert follower.read() == [b"2"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 9)),
            st.tuples(st.just("read"), st.integers(1, 5)),
            st.tuples(st.just("restart"), st.integers(0, 6)),
            st.tuples(st.just("rotate"), st.just(0)),
        ),
        max_size=25,
    ),
    place_bytes=st.sampled_from((1, 7, followed_file.PLACE_BYTES)),
)
def test_whatever_happens_each_line_is_one_event(
    steps: list[tuple[str, int]], place_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch, Follower(tmp_path_factory.mktemp("follow")) as follower:
        patch.setattr(followed_file, "PLACE_BYTES", place_bytes)
        patch.setattr(followed_file, "BLOCK_BYTES", 5)
        written = live(follower, steps)
        assert follower.found == written


def test_a_restart_in_a_long_file_begins_near_its_place(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_file, "PLACE_BYTES", 100)
    monkeypatch.setattr(followed_file, "BLOCK_BYTES", 50)
    bom = b"\xef\xbb\xbf"  # part of a line, wherever it is but at the beginning of the file
    written = [bom + b"%d" % number for number in range(300)]
    follower.write(b"".join(line + b"\n" for line in written))
    follower.read()
    read = count_reads(follower, monkeypatch)
    for at in range(299, 271, -1):  # at the last three places, and between them
        read.clear()
        follower.restart(at)
        assert sum(read) < 200
        follower.read()
        assert follower.found == [b"0", *written[1:]]
    follower.restart(2)  # before all places that are remembered
    follower.read()
    assert follower.found == [b"0", *written[1:]]
    assert len(marks_of(follower)) == 1


def test_lines_that_are_too_long_are_the_same_after_a_restart_anywhere(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_file, "PLACE_BYTES", 1)
    monkeypatch.setattr(followed_file, "BLOCK_BYTES", 10_000)
    follower.write(b"".join(b"%d" % number + b"x" * (1 + number % 3 * 80_000) + b"\n" for number in range(12)))
    whole = follower.read()
    for at in range(12):
        follower.restart(at)
        follower.read()
        assert follower.found == whole
        assert [line[:2].rstrip(b"x") for line in follower.found] == [b"%d" % number for number in range(12)]


def test_a_long_csv_file_is_read_from_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_file, "PLACE_BYTES", 10)
    monkeypatch.setattr(followed_file, "BLOCK_BYTES", 20)
    with Follower(tmp_path, "events.csv") as follower:
        follower.write(b"a,b\n" + b"".join(b"%d,%d\n" % (number, number) for number in range(50)))
        follower.read()
        follower.restart(40)
        follower.read()
        assert [json.loads(line)["b"] for line in follower.found] == [str(number) for number in range(50)]


def test_a_place_in_a_file_that_was_written_anew_is_not_used(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_file, "PLACE_BYTES", 500)
    monkeypatch.setattr(followed_file, "BLOCK_BYTES", 100)
    follower.write(b"head\n" * 300 + b"a\n" * 1_000)
    follower.read()
    assert min(place[0] for place in marks_of(follower)[0][5]) <= 1_290
    follower.source.close()
    with follower.path.open("r+b") as file:  # the same file, with fewer lines before its places
        file.seek(1_500)
        file.write(b"b" * 2_000)
    follower._open()
    assert follower.source.skip(1_290) == 300
    assert follower.source.read(5) == []
    follower.write(b"\n" + b"c\n" * 1_000)
    assert len(follower.read()) == 1_001
    assert [place[0] for place in marks_of(follower)[0][5]][-1] > 301  # those of the other bytes are forgotten


def test_places_are_those_of_their_own_file_and_stay_when_the_file_is_known_better(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followed_file, "PLACE_BYTES", 1)
    monkeypatch.setattr(followed_file, "BLOCK_BYTES", 4)
    follower.write(b"1\n")
    follower.read()
    follower.write(b"2\n3\n")
    follower.read()
    assert [place[0] for place in marks_of(follower)[0][5]] == [3]
    follower.restart(0)  # from the beginning, of which more is known now
    follower.read()
    (mark,) = marks_of(follower)
    assert (mark[3], mark[5][0][0]) == (4, 3)
    follower.rotate()
    follower.write(b"4\n5\n6\n")
    with monkeypatch.context() as patch:
        patch.setattr(FolderDisk, "replace", no_room)
        assert follower.read() == []  # its beginning cannot be remembered, so nothing of it is
    assert [[place[0] for place in mark[5]] for mark in marks_of(follower)] == [[3]]
    assert follower.read() == [b"4", b"5", b"6"]


def no_room(_disk: FolderDisk, _name: str, _data: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def marks_of(follower: Follower) -> list[Any]:
    """Return what is remembered of each file, as it is on the disk."""
    found: list[Any] = json.loads((follower.path.parent / "spool" / "source-log.json").read_bytes())
    return found


def count_reads(follower: Follower, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return where the sizes of all that is read from now on will be."""
    sizes: list[int] = []
    read = FollowedFile.read

    def counted(file: FollowedFile) -> bytes | None:
        block = read(file)
        sizes.append(len(block or b""))
        return block

    monkeypatch.setattr(FollowedFile, "read", counted)
    return sizes


def live(follower: Follower, steps: list[tuple[str, int]]) -> list[bytes]:
    """Do the steps and read to the end; return the lines that were written."""
    written: list[bytes] = []
    rotations = 0
    for step, size in steps:
        match step:
            case "write":
                lines = [b"%d" % number for number in range(len(written), len(written) + size)]
                written += lines
                follower.write(b"".join(line + b"\n" for line in lines))
            case "read":
                follower.found += follower.source.read(size)
            case "restart":
                follower.restart(max(0, len(follower.found) - size))
            case _:
                rotations += 1
                os.utime(follower.rotate(f".{rotations}"), ns=(rotations * 10**9, rotations * 10**9))
                follower.path.touch()
    follower.read()
    return written


def test_a_followed_csv_has_a_header_in_each_file_and_waits_for_whole_records(tmp_path: Path) -> None:
    with Follower(tmp_path, "events.csv") as follower:
        follower.write('\ufeff名,b\r\n1,"two\nli'.encode())
        assert follower.read() == []
        follower.write(b'nes"\r\n2,\r\n')
        assert [json.loads(line) for line in follower.read()] == [{"名": "1", "b": "two\nlines"}, {"名": "2"}]
        follower.rotate()
        follower.write(b"b,c\n7,8\n")
        assert [json.loads(line) for line in follower.read()] == [{"b": "7", "c": "8"}]
        follower.restart(1)
        assert [json.loads(line) for line in follower.read()] == [{"名": "2"}, {"b": "7", "c": "8"}]


CELLS = st.text(st.sampled_from('ab ,"\n\r设'), max_size=6)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8),
    ending=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(1, 30),
)
def test_records_are_those_of_the_csv_library_whatever_the_blocks(
    rows: list[list[str]], ending: str, block: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL).writerows([["x", "y"], *rows])
    lines = text.getvalue().encode().split(b"\n")[:-1]
    records = CsvRecords()
    found: list[bytes] = []
    for at in range(0, len(lines), block):
        found += records.feed(lines[at : at + block])
    found += records.finish()
    named = [dict(zip("xy", row, strict=True)) for row in rows]
    assert [json.loads(line) for line in found] == [{k: v for k, v in row.items() if v} for row in named]


@given(
    st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"a", b'"').replace(b"\n", b",")), max_size=12), st.data()
)
def test_whatever_a_csv_holds_its_events_do_not_depend_on_what_is_read_at_once(
    lines: list[bytes], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edge_agent.core.sources.csv_records.EVENT_BYTES_MAX", 12)
        whole = CsvRecords()
        expected = [*whole.feed(lines), *whole.finish()]
        records, found, at = CsvRecords(), list[bytes](), 0
        while at < len(lines):
            size = data.draw(st.integers(1, len(lines) - at))
            found += records.feed(lines[at : at + size])
            at += size
        assert [*found, *records.finish()] == expected
    for event in expected:
        json.loads(event)


def test_an_open_quote_costs_one_line_and_not_the_rest_of_the_file() -> None:
    records = CsvRecords()
    lines = [b"a,b", b'1,"open', *[b"2,%d" % number for number in range(40_000)]]
    found = [json.loads(line) for line in [*records.feed(lines), *records.finish()]]
    assert found[0] == 'not a CSV record: 1,"open'
    assert found[1:] == [{"a": "2", "b": str(number)} for number in range(40_000)]


def test_what_no_contract_takes_is_still_an_event(tmp_path: Path) -> None:
    lines = lines_of([reading(0), reading(1), reading(2)])
    path = tmp_path / "events.jsonl"
    data = (
        b"\xef\xbb\xbf" + lines[0] + b"\r\n\r\n\xff\xfe\n" + lines[1] + b"\r\n" + b"x" * (EVENT_BYTES_MAX + 7) + b"\n"
    )
    path.write_bytes(data + lines[2])
    source = open_source(path, follow=False)
    read = Reader(CONTRACTS["telemetry"], ARRAYS).read(0, source.read(100))
    source.close()
    assert [entry.code for entry in read.refused] == ["event.json", "event.json", "event.max_bytes"]
    assert list(read.events.seqs) == [0, 3, 5]
    (tmp_path / "events.csv").write_bytes("asset_id,设备\nx,\xff\n".encode("latin-1", "replace") + b"\xff,1\n")
    table = open_source(tmp_path / "events.csv", follow=False)
    assert json.loads(table.read(10)[-1]).startswith("not UTF-8: ")
    table.close()


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["events.jsonl", "events.csv"])
def test_packed_files_are_replayed(name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_files, "BLOCK_BYTES", 1_000)
    plain = tmp_path / name
    head = b"a,b\n" if name.endswith("csv") else b""
    plain.write_bytes(head + b"".join(b"%d,x\n" % number for number in range(5_000)))
    expected = all_of(plain)
    assert len(expected) == 5_000
    pack(plain, ending)
    packed = plain.with_name(name + ending)
    assert all_of(packed) == expected
    damaged = bytearray(packed.read_bytes())
    packed.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(SourceError, match="damaged after event"):
        all_of(packed)


def all_of(path: Path) -> list[bytes]:
    source = open_source(path, follow=False)
    found: list[bytes] = []
    try:
        while part := source.read(700):
            found += part
    finally:
        source.close()
    return found
