"""Files as sources: JSON lines, and CSV with a header, each event as one line of JSON."""

import csv
import zlib
from pathlib import Path
from typing import IO, Final

import msgspec

from edge_agent.core.refusal import EVENT_BYTES_MAX
from edge_agent.errors import SourceError
from edge_agent.ports import Source

BLOCK_BYTES: Final = 262_144  # bytes read at once
CHUNK_BYTES_MAX: Final = 4_194_304  # bytes of lines handed out at once; bounds a flush whose events are all long
_KEPT_BYTES: Final = EVENT_BYTES_MAX + 1  # bytes kept of a longer line: enough to see that it is too long


def open_source(path: Path, *, follow: bool) -> Source:
    """Open a file by its ending. With `follow`, lines appended later are events too. Raises SourceError."""
    try:
        return CsvSource(path) if path.suffix == ".csv" else LineSource(path, follow=follow)
    except OSError as error:
        raise SourceError(f"source {path}: expected a readable file: {error.strerror}") from error


def first_line_crc32(path: Path) -> int:
    """Return what tells one source from another: the checksum of its first line. Raises SourceError."""
    try:
        with open(path, "rb") as file:
            return zlib.crc32(file.readline(_KEPT_BYTES))
    except OSError as error:
        raise SourceError(f"source {path}: expected a readable file: {error.strerror}") from error


class LineSource:
    """Lines of a file. The newline that ends the last line begins no further event; an empty line between is one."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115 - open as long as the process
        self._follow = follow
        self._lines: list[bytes] = []
        self._next = 0
        self._rest = b""
        self._has_rest = False
        self.at_end = False

    def read(self, events_max: int) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while len(taken) < events_max and size < CHUNK_BYTES_MAX:
            if self._next == len(self._lines) and not self._fill():
                break
            part = self._lines[self._next : self._next + events_max - len(taken)]
            self._next += len(part)
            size += sum(map(len, part))
            taken += part
        return taken

    def skip(self, events: int) -> int:
        passed = 0
        while passed < events and (lines := self.read(events - passed)):
            passed += len(lines)
        return passed

    def close(self) -> None:
        self._file.close()

    def _fill(self) -> bool:
        """Read on until there is a whole line; say whether there is one."""
        while True:
            block = self._file.read(BLOCK_BYTES)
            if not block:
                return self._finish()
            first, *more = block.split(b"\n")
            self._rest = (self._rest + first)[:_KEPT_BYTES]
            self._has_rest = True
            if more:
                *whole, last = more
                self._lines = [self._rest, *(line[:_KEPT_BYTES] for line in whole)]
                self._next = 0
                self._rest = last[:_KEPT_BYTES]
                self._has_rest = bool(last)
                return True

    def _finish(self) -> bool:
        """Follow, or hand out a last line that has no newline."""
        if self._follow:
            return False
        self.at_end = True
        if not self._has_rest:
            return False
        self._lines, self._next = [self._rest], 0
        self._rest, self._has_rest = b"", False
        return True


class CsvSource:
    """Records of a CSV file as JSON objects of text; an empty cell is a field that is not there."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = open(path, newline="", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._records = csv.reader(self._file)
        self._header = next(self._records, [])
        self.at_end = False

    def read(self, events_max: int) -> list[bytes]:
        taken: list[bytes] = []
        size = 0
        while len(taken) < events_max and size < CHUNK_BYTES_MAX:
            line = self._next_line()
            if line is None:
                self.at_end = True
                break
            taken.append(line)
            size += len(line)
        return taken

    def skip(self, events: int) -> int:
        passed = 0
        while passed < events and self._next_line() is not None:
            passed += 1
        return passed

    def close(self) -> None:
        self._file.close()

    def _next_line(self) -> bytes | None:
        try:
            record = next(self._records)
        except StopIteration:
            return None
        except csv.Error as error:
            return msgspec.json.encode(f"not a CSV record: {error}")
        if len(record) != len(self._header):
            return msgspec.json.encode(record)  # an array is no event: it is refused and kept as it is
        return msgspec.json.encode({name: cell for name, cell in zip(self._header, record, strict=True) if cell})
