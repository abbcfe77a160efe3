"""A file that is written on and now and then replaced: its bytes in order, over rotations and restarts.

Events of a file have numbers, and a restart asks for those from a number on. So where each file begins is remembered in
`file_marks`, in this order:

1. first event  of a new file is read; nothing of it is handed out.
2. mark         which file it is, and the number of its first event, become durable. Crash before: the next start finds
                the older file, reads it to its end and comes here again.
3. hand out     Crash after: the next start finds the mark, and the file by its inode, or by its first bytes if it was
                packed meanwhile.

Now and then a place further in is remembered too, so that a restart need not read gigabytes to count their lines.

A file is left for the next one once the next has a byte and the old was read to its end after that: a writer opens the
new file only when it is done with the old.
"""

import logging
import os
import re
import stat
import zlib
from pathlib import Path
from typing import IO, Final

from msgspec.structs import replace

from edge_agent.adapters.file_marks import FileMark, FileMarks, Place
from edge_agent.adapters.packed_files import PACKED, Bytes, open_packed, unreadable
from edge_agent.errors import SourceError

BLOCK_BYTES: Final = 65_536  # bytes read at once
PLACE_BYTES: Final = 16_777_216  # bytes between places; a slow disk reads these in 0.3 s, and syncs one place in 0.03 s
TAIL_BYTES: Final = 64  # bytes before our place that are compared, to notice a file that was cut and written anew
LOOKS: Final = 3  # times that a file is looked for: a rotation renames one after the other meanwhile
HEAD_BYTES: Final = 1_024  # bytes at a file's beginning that tell it from others with the same inode
# What logrotate, its `dateext` and Python's handlers append: `.1`, `-20260131`, `.2026-01-31_12-00`; and a packer.
ROTATED: Final = re.compile(r"[.\-_]\d[\d\-_T:]*(\.gz|\.zst)?")

_log = logging.getLogger(__name__)


class FollowedFile:
    """Implements `source_files.Blocks` for a file that others write to. Raises SourceError."""

    at_end: Final = False
    _file: Bytes
    _plain: IO[bytes] | None  # the same, where it is not packed
    _head: bytes
    _tail: bytes
    _was_at_end: bool
    _following: Path | None
    _noted: int  # up to where there are places

    def __init__(self, path: Path, marks: FileMarks) -> None:
        self.trouble: str | None = None
        self._path = path
        self._marks = marks
        self._current: FileMark | None = None
        self._open(path)

    def start(self, seq: int) -> Place:
        """Open the file that event `seq` is in, and return its beginning, or a place behind that and before the event.

        It goes on there, with the first line that begins at that place.
        """
        mark = self._marks.of(seq)
        place = None
        if mark is not None:
            self._turn_to(self._found(mark))
            known = mark.before(seq)
            place = self._gone_to(known)
            if known is not None and place is None:
                mark = replace(mark, places=())  # of other bytes than those that are there now
        elif self._marks.marks:
            oldest = self._marks.marks[0].first_seq
            raise SourceError(f"source {self._path}: events before number {oldest} were asked for: {_GONE}")
        else:
            # Remembered before a byte of it is read: it may be rotated before the first.
            mark = self._marks.add(self._mark(0, _head_of(self._path)))
        self._current = mark
        return place or Place(mark.first_seq)

    def _gone_to(self, place: Place | None) -> Place | None:
        """Go to a place, if what is before it there is still the same."""
        if place is None or self._plain is None:
            return None
        tail = self._before(place.offset)
        if zlib.crc32(tail) != place.tail_crc32:
            return None
        self._plain.seek(place.offset)
        self._tail, self._noted = tail, place.offset
        return place

    def note(self, seq: int, rest_bytes: int) -> None:
        """Hear that event `seq` begins so many bytes before what was read last; remembered when it is worth it."""
        if self._plain is None or self._current is None:
            return
        offset = self._plain.tell() - rest_bytes
        if offset >= self._noted + PLACE_BYTES:
            self._noted = offset
            place = Place(seq, offset, zlib.crc32(self._before(offset)))
            self._current = self._marks.note(self._current, place)

    def _before(self, offset: int) -> bytes:
        assert self._plain is not None
        begin = max(0, offset - TAIL_BYTES)
        return os.pread(self._plain.fileno(), offset - begin, begin)

    def begin(self, first_seq: int) -> None:
        """Note that this file's first event is here and will be `first_seq` (step 2)."""
        self._current = self._marks.add(self._mark(first_seq, self._head))

    def _mark(self, first_seq: int, head: bytes) -> FileMark:
        return FileMark(first_seq, self._status.st_dev, self._status.st_ino, len(head), zlib.crc32(head))

    def read(self) -> bytes | None:
        """Return the next bytes, none when there are none yet; None at the end of a file, and then the next begins."""
        if self._following is not None:
            following, self._following = self._following, None
            try:
                self._turn_to(following)
            except FileNotFoundError:
                return b""  # renamed since it was found: looked for again, from the end of the old file
        # Looked for before the last bytes are read: all that goes to the old file is there before the new one has any.
        is_left = self._is_left()
        if self._was_at_end and self._is_cut():
            self._say_cut()
            self._following = self._path
            return None
        block = self._file.read(BLOCK_BYTES)
        if block:
            self._head = (self._head + block)[:HEAD_BYTES] if len(self._head) < HEAD_BYTES else self._head
            self._tail = (self._tail + block)[-TAIL_BYTES:]
        self._was_at_end = not block
        if block or not is_left:
            return block
        self._following = self._next_file()
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _turn_to(self, path: Path) -> None:
        old = self._file
        self._open(path)
        old.close()

    def _open(self, path: Path) -> None:
        if path.suffix in PACKED:
            self._status = path.stat()
            self._plain, self._file = None, open_packed(path)
        else:
            self._plain = open(path, "rb")  # noqa: SIM115 - until the next
            self._status, self._file = os.fstat(self._plain.fileno()), self._plain
        self._following = None
        self._head = self._tail = b""
        self._was_at_end = False
        self._noted = 0

    def _is_left(self) -> bool:
        """Say whether the writer is done with this file: there is a newer one with something in it."""
        newest = _status_of(self._path)
        if newest is not None and (newest.st_dev, newest.st_ino) == (self._status.st_dev, self._status.st_ino):
            return False
        has_bytes = newest is not None and newest.st_size > 0
        return has_bytes or self._next_mark() is not None or bool(self._later())

    def _next_file(self) -> Path:
        """Return the file that comes after the open one.

        It is the one that came after it before a restart; else the oldest of those rotated away since then; else the
        newest.
        """
        if (known := self._next_mark()) is not None:
            return self._found(known)
        return min(self._later(), default=(0, self._path))[1]

    def _next_mark(self) -> FileMark | None:
        return self._marks.after(self._current) if self._current is not None else None

    def _later(self) -> list[tuple[int, Path]]:
        """Return files, by when they were last written to, that were rotated away after the open one and not read."""
        written_ns = (os.fstat(self._plain.fileno()) if self._plain is not None else self._status).st_mtime_ns
        return [
            (status.st_mtime_ns, path)
            for status, path in self._rotated()
            if status.st_mtime_ns >= written_ns and status.st_size > 0 and not self._is_known(status, path)
        ]

    def _beside(self) -> list[tuple[os.stat_result, Path]]:
        """Return the files of the folder; one that is renamed at this moment may be missing."""
        found = [(_status_of(path), path) for path in self._path.parent.iterdir()]
        return [(status, path) for status, path in found if status is not None and stat.S_ISREG(status.st_mode)]

    def _rotated(self) -> list[tuple[os.stat_result, Path]]:
        name = self._path.name
        return [
            (status, path)
            for status, path in self._beside()
            if path.name.startswith(name) and ROTATED.fullmatch(path.name, len(name))
        ]

    def _is_known(self, status: os.stat_result, path: Path) -> bool:
        """Say whether a file was read, or is being read."""
        if (status.st_dev, status.st_ino) == (self._status.st_dev, self._status.st_ino):
            return True
        head = _head_of(path)
        if path.suffix in PACKED:
            return any(mark.fits(head) for mark in self._marks.marks)
        return any(mark.is_file(status.st_dev, status.st_ino) and mark.fits(head) for mark in self._marks.marks)

    def _found(self, mark: FileMark) -> Path:
        """Return where a file lies by now. Raises SourceError."""
        for _ in range(LOOKS):
            for status, path in self._beside():
                if mark.is_file(status.st_dev, status.st_ino) and mark.fits(_head_of(path)):
                    return path
            for _status, path in self._rotated():
                if path.suffix in PACKED and mark.fits(_head_of(path)):
                    return path
        raise SourceError(f"source {self._path}: the file with events from number {mark.first_seq} on: {_GONE}")

    def _is_cut(self) -> bool:
        """Say whether the file is no longer the one that was read: shorter, or with other bytes before our place."""
        if self._plain is None or not self._tail:
            return False
        here = self._plain.tell()
        return os.fstat(self._plain.fileno()).st_size < here or self._before(here)[-len(self._tail) :] != self._tail

    def _say_cut(self) -> None:
        self.trouble = (
            f"source {self._path}: it was cut while it was followed, and is read from its beginning; what was written "
            "between the last look and the cut is missing: let the rotation rename it (logrotate: no copytruncate)"
        )
        _log.warning("%s", self.trouble)


_GONE: Final = "it is no longer there: put it back beside the file, or give the agent another spool_dir"


def _status_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _head_of(path: Path) -> bytes:
    """Return a file's first bytes; of one that cannot be read, none."""
    try:
        file: Bytes = open_packed(path) if path.suffix in PACKED else open(path, "rb")  # noqa: SIM115 - closed below
    except OSError:
        return b""
    try:
        return file.read(HEAD_BYTES)[:HEAD_BYTES]
    except unreadable():
        return b""
    finally:
        file.close()
