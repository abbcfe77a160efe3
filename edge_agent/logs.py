"""The agent's log: lines to standard error or into a file, never more than a disk or a journal can hold."""

import io
import logging
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from edge_agent.core.folding import Folding, Line, Repeated, cleaned
from edge_agent.errors import ConfigError

FILE_BYTES_MAX: Final = 1_048_576  # bytes; some 8,000 lines
FILES_MAX: Final = 4  # files, the one being written among them: 4 MiB hold a week of a device that fares badly
MANY_KINDS: Final = "lines of many kinds"

_HEAD: Final = logging.Formatter("%(asctime)s %(levelname)s %(name)s")
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class BoundedHandler(logging.Handler):
    """Writes cleaned lines through `write`, repeats folded.

    `journal` puts its priority before each line, as sd-daemon(3) has it. A line that cannot be written is left out: the
    agent goes on without its log.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        now_s: Callable[[], float],
        *,
        journal: bool = False,
        end: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._end = end
        self._write = write
        self._now_s = now_s
        self._folding = Folding()
        self._journal = journal
        self.unwritten = 0  # lines that the disk did not take

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count it."""
        self.tick()
        text = record.getMessage()
        if record.exc_info:
            text += " " + logging.Formatter().formatException(record.exc_info)
        line = Line(record.levelno, record.name, cleaned(text))
        if self._folding.admits(line, self._now_s()):
            self._put(line)

    def tick(self, *, ends: bool = False) -> None:
        """Tell what was folded, if it is time; called now and then, also when nothing is logged."""
        for repeated in self._folding.due(self._now_s(), ends=ends):
            self._put(_told(repeated))

    def close(self) -> None:
        """Tell what was folded, and end what is written to."""
        self.tick(ends=True)
        if self._end is not None:
            self._end()
        super().close()

    def _put(self, line: Line) -> None:
        level = logging.getLevelName(line.level)
        head = _HEAD.format(logging.makeLogRecord({"levelname": level, "name": line.logger}))
        priority = f"<{_PRIORITIES.get(line.level, 6)}>" if self._journal else ""
        try:
            self._write(f"{priority}{head.rstrip()} {line.text}\n")
        except OSError:
            self.unwritten += 1


class RotatedFile:
    """A file that begins anew before it grows too long; older ones are `.1`, `.2`, … and the oldest goes.

    For its owner alone. Every method raises OSError.
    """

    def __init__(self, path: Path, bytes_max: int = FILE_BYTES_MAX, files_max: int = FILES_MAX) -> None:
        self._path, self._bytes_max, self._files_max = path, bytes_max, files_max
        self._file = _opened(path)

    def write(self, text: str) -> None:
        """Append a line; it is with the kernel when this returns."""
        data = text.encode(errors="replace")
        size_bytes = os.fstat(self._file.fileno()).st_size
        if size_bytes and size_bytes + len(data) > self._bytes_max:
            self._rotate()
        self._file.write(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{n}") for n in range(1, self._files_max))]
        for newer, older in reversed(list(pairwise(names))):
            if newer.exists():
                newer.replace(older)
        self._file.close()
        self._file = _opened(self._path)


def begin(log_file: Path | None, now_s: Callable[[], float], *, journal: bool = False) -> BoundedHandler:
    """Let all logging go into a file, or to standard error without one; return what does it. Raises ConfigError."""
    try:
        file = RotatedFile(log_file) if log_file is not None else None
    except OSError as error:
        raise ConfigError(f"log_file {log_file}: expected a file that can be written: {error.strerror}") from error
    if file is not None:
        handler = BoundedHandler(file.write, now_s, end=file.close)
    else:
        handler = BoundedHandler(_to_standard_error, now_s, journal=journal)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def _to_standard_error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _opened(path: Path) -> io.FileIO:
    return io.FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _told(repeated: Repeated) -> Line:
    like = repeated.like
    if like is None:
        return Line(logging.WARNING, __name__, f"{repeated.count} more {MANY_KINDS}")
    return Line(like.level, like.logger, cleaned(f"{repeated.count} more like: {like.text}"))
