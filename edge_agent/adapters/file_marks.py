"""Which files a source has read, and which of its events each begins with: how a restart finds the one to go on in."""

import contextlib
import zlib
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from contracts.malformed import MALFORMED
from edge_agent.errors import SourceError
from edge_agent.ports import Disk

MARKS_MAX: Final = 64  # files remembered; a restart asks for events of the last few at most
PLACES_MAX: Final = 3  # in one file; a restart asks for one that is at most a flush, 4 MiB, behind what was read


class Place(Struct, frozen=True, array_like=True):
    """Where in a file event `seq` begins; the bytes just before `offset` must still have this checksum.

    The beginning of a file has offset 0.
    """

    seq: int
    offset: int = 0
    tail_crc32: int = 0


class FileMark(Struct, frozen=True, array_like=True):
    """A file that event `first_seq` is the first of. Its inode may be used again, so its first bytes must fit too.

    `places` are the newest ones within it.
    """

    first_seq: int
    device: int
    inode: int
    head_bytes: int
    head_crc32: int
    places: tuple[Place, ...] = ()

    def is_file(self, device: int, inode: int) -> bool:
        """Say whether the inode is the file's."""
        return (self.device, self.inode) == (device, inode)

    def fits(self, head: bytes) -> bool:
        """Say whether a file may begin so."""
        return zlib.crc32(head[: self.head_bytes]) == self.head_crc32 and len(head) >= self.head_bytes

    def before(self, seq: int) -> Place | None:
        """Return the last place that is not behind the beginning of event `seq`."""
        return max((place for place in self.places if place.seq <= seq), key=lambda place: place.seq, default=None)


class FileMarks:
    """The newest marks, kept in a file of `disk`; without a disk they last as long as the process."""

    def __init__(self, disk: Disk | None = None, name: str = "") -> None:
        self._disk = disk
        self._name = name
        self.marks: tuple[FileMark, ...] = ()
        if disk is not None and name in disk.names():
            try:
                self.marks = msgspec.json.decode(disk.read(name), type=tuple[FileMark, ...])
            except MALFORMED as error:
                raise SourceError(
                    f"{name}: expected the places of a followed file: {error}: remove it, and the spool with it"
                ) from error

    def add(self, mark: FileMark) -> FileMark:
        """Remember where a file begins, and return the mark; one that is there already is kept unless it says less.

        May raise OSError; then it is not remembered.
        """
        same = [old for old in self.marks if old.first_seq == mark.first_seq and old.is_file(mark.device, mark.inode)]
        if same and same[0].head_bytes >= mark.head_bytes:
            return same[0]
        if same:
            mark = replace(mark, places=same[0].places)
        self._put(mark, must=not same)  # What only makes a mark surer may wait for a disk that takes it.
        return mark

    def note(self, mark: FileMark, place: Place) -> FileMark:
        """Remember a place in a marked file, and return its mark then; without it a restart takes longer.

        One before the last that is known, as who reads a file again comes to, changes nothing.
        """
        if mark.places and place.seq <= mark.places[-1].seq:
            return mark
        noted = replace(mark, places=(*mark.places, place)[-PLACES_MAX:])
        self._put(noted, must=False)
        return noted

    def _put(self, mark: FileMark, *, must: bool) -> None:
        others = [old for old in self.marks if old.first_seq != mark.first_seq]
        marks = tuple(sorted((*others, mark), key=lambda known: known.first_seq))[-MARKS_MAX:]
        if self._disk is not None:
            with contextlib.nullcontext() if must else contextlib.suppress(OSError):
                self._disk.replace(self._name, msgspec.json.encode(marks))
        self.marks = marks

    def of(self, seq: int) -> FileMark | None:
        """Return the mark of the file that event `seq` is in, or will be."""
        return max((m for m in self.marks if m.first_seq <= seq), key=lambda m: m.first_seq, default=None)

    def after(self, mark: FileMark) -> FileMark | None:
        """Return the mark that follows another."""
        return min((m for m in self.marks if m.first_seq > mark.first_seq), key=lambda m: m.first_seq, default=None)
