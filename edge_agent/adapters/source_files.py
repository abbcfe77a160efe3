"""Files as sources: JSON lines, and CSV with a header, each event as one line of JSON."""

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from edge_agent.adapters.file_marks import FileMarks, Place
from edge_agent.adapters.followed_file import BLOCK_BYTES, FollowedFile
from edge_agent.adapters.packed_files import PACKED, Bytes, open_packed, unreadable
from edge_agent.core.sources.line_splitting import KEPT_BYTES, LineSplitter
from edge_agent.errors import SourceError
from edge_agent.ports import Source

if TYPE_CHECKING:
    from edge_agent.core.sources.csv_records import CsvRecords

CHUNK_BYTES_MAX: Final = 4_194_304  # bytes of lines handed out at once; bounds a flush whose events are all long
BOM: Final = b"\xef\xbb\xbf"


def open_source(path: Path, *, follow: bool, marks: FileMarks | None = None) -> Source:
    """Open a file by its ending: `.csv`, else JSON lines, both also packed as `.gz` or `.zst`.

    With `follow`, lines appended later are events too, also those of files that take its place; `marks` lets a restart
    find these again. Raises SourceError.
    """
    try:
        blocks: Blocks = FollowedFile(path, marks or FileMarks()) if follow else WholeFile(path)
    except OSError as error:
        raise SourceError(f"source {path}: expected a readable file: {error.strerror}") from error
    return FileReader(path, blocks, _csv_records() if is_csv(path.name) else None)


def _csv_records() -> "CsvRecords":
    # Only for one: 0.1 MB.
    from edge_agent.core.sources.csv_records import CsvRecords

    return CsvRecords()


def is_csv(name: str) -> bool:
    """Say whether a file of this name is read as CSV, packed or not: all its values are text."""
    return name.removesuffix(".gz").removesuffix(".zst").endswith(".csv")


def first_line_crc32(path: Path) -> int:
    """Return what tells one source from another: the checksum of its first line. Raises SourceError."""
    try:
        with open(path, "rb") as file:
            return zlib.crc32(file.readline(KEPT_BYTES))
    except OSError as error:
        raise SourceError(f"source {path}: expected a readable file: {error.strerror}") from error


class Blocks(Protocol):
    """Bytes of one file, or of several one after the other. May raise OSError, and what a packed file raises."""

    trouble: str | None

    @property
    def at_end(self) -> bool:
        """Whether no more will come."""
        ...

    def start(self, seq: int) -> Place:
        """Go to where an event begins that is `seq` or before, and return the place."""
        ...

    def begin(self, first_seq: int) -> None:
        """Hear that the present file's first event was read and has this number. OSError: it is not handed out yet."""
        ...

    def note(self, seq: int, rest_bytes: int) -> None:
        """Hear that event `seq` begins so many bytes before the place up to which was read."""
        ...

    def read(self) -> bytes | None:
        """Return the next bytes, none when there are none yet, None at the end of a file."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class WholeFile:
    """Implements `Blocks` for a file that is read once, from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self.trouble: str | None = None
        self.at_end = False
        self._file: Bytes = open_packed(path) if path.suffix in PACKED else open(path, "rb")  # noqa: SIM115

    def start(self, seq: int) -> Place:
        """Return its beginning: it is the only file."""
        return Place(0)

    def begin(self, first_seq: int) -> None:
        """Nothing is to be remembered."""

    def note(self, seq: int, rest_bytes: int) -> None:
        """Nothing is to be remembered."""

    def read(self) -> bytes | None:
        """Return the next bytes, None at the end."""
        block = self._file.read(BLOCK_BYTES)
        self.at_end = not block
        return block or None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FileReader:
    """Implements `ports.Source`. The newline that ends the last line begins no further event; an empty line is one.

    A byte order mark is not part of the first line. A line that was cut off by the end of its file is an event.
    """

    def __init__(self, path: Path, blocks: Blocks, records: "CsvRecords | None") -> None:
        self.at_end = False
        self._path = path
        self._blocks = blocks
        self._records = records
        self._splitter = LineSplitter()
        self._events: list[bytes] = []
        self._next = 0
        self._read_upto = 0  # number of the first event that was not read yet
        self._is_started = False
        self._is_fresh = True  # no line of the present file was read yet
        self._is_begun = False  # an event of the present file was handed out
        self._is_ended = False  # the next bytes are another file's
        self._disk_trouble: str | None = None

    @property
    def trouble(self) -> str | None:
        """The last thing that went wrong, where it says something about the present."""
        return self._disk_trouble or self._blocks.trouble

    def read(self, events_max: int) -> list[bytes]:
        """Return the next events. Raises SourceError when the file can be read no further."""
        if not self._is_started:
            self.skip(0)
        taken: list[bytes] = []
        size = 0
        while len(taken) < events_max and size < CHUNK_BYTES_MAX:
            if not self._is_ready():
                break
            part = self._events[self._next : self._next + events_max - len(taken)]
            self._next += len(part)
            size += sum(map(len, part))
            taken += part
        return taken

    def skip(self, events: int) -> int:
        """Pass over the first events of all; return how many there were to pass over. Raises SourceError."""
        try:
            place = self._blocks.start(events)
        except OSError as error:
            raise SourceError(f"source {self._path}: expected files to read and to write beside it: {error}") from error
        passed = self._read_upto = place.seq
        self._is_started = True
        self._is_fresh, self._is_begun = place.offset == 0, place.offset > 0
        # One block after the other: what is passed over must not be in memory together.
        while passed < events and self._is_ready():
            step = min(len(self._events) - self._next, events - passed)
            self._next += step
            passed += step
        return passed

    def close(self) -> None:
        self._blocks.close()

    def _is_ready(self) -> bool:
        """Say whether there is an event that may be handed out."""
        return (self._next < len(self._events) or self._fill()) and self._begin()

    def _fill(self) -> bool:
        """Read on until there is an event; say whether there is one."""
        while not self.at_end:
            try:
                block = self._blocks.read()
            except unreadable() as error:
                raise SourceError(
                    f"source {self._path}: damaged after event {self._read_upto}: {error}: put a whole file there"
                ) from error
            if block == b"":
                return False
            if self._is_ended:
                self._is_ended = self._is_begun = False
            self._events, self._next = self._file_end() if block is None else self._part(block), 0
            self._is_ended = block is None
            if self._events:
                return True
        return False

    def _begin(self) -> bool:
        """Have it remembered where a file begins before its first event is handed out; say whether that is so."""
        if not self._is_begun:
            try:
                self._blocks.begin(self._read_upto - len(self._events))
            except OSError as error:
                self._disk_trouble = f"source {self._path}: its place cannot be written: {error.strerror}: it waits"
                return False
            self._is_begun, self._disk_trouble = True, None
        return True

    def _part(self, block: bytes) -> list[bytes]:
        lines = self._splitter.feed(block)
        events = self._records.feed(self._clean(lines)) if self._records is not None else self._clean(lines)
        self._read_upto += len(events)
        # What the cells of a CSV file mean is said at its beginning: it is read from there.
        if self._is_begun and self._records is None and self._splitter.rest_bytes is not None:
            self._blocks.note(self._read_upto, self._splitter.rest_bytes)
        return events

    def _file_end(self) -> list[bytes]:
        """Take what has no newline, and be ready for another file's header."""
        lines = [line for line in self._clean(self._splitter.finish()) if line]
        events = [*self._records.feed(lines), *self._records.finish()] if self._records is not None else lines
        self._read_upto += len(events)
        self._is_fresh = True
        self.at_end = self._blocks.at_end
        return events

    def _clean(self, lines: list[bytes]) -> list[bytes]:
        if self._is_fresh and lines:
            self._is_fresh = False
            lines[0] = lines[0].removeprefix(BOM)
        return lines
