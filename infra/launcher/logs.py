"""Finding the last error in a part's log."""

import re
from pathlib import Path
from typing import Final

TAIL_BYTES: Final = 131_072  # of the log's end; a Java stack trace has some 10 KB
LINE_CHARS_MAX: Final = 300

_ERROR: Final = re.compile(r"\b(ERROR|FATAL|CRITICAL|PANIC|panic:|[A-Za-z.]*(?:Error|Exception)\b:)|^Error\b|^F\d{4} ")
_WARNING: Final = re.compile(r"\bWARN(ING)?\b")  # a retry that worked is told with the exception's name


def last_error_in(text: str) -> str | None:
    """Return the last line that reports an error, shortened; None when no line does."""
    for line in reversed(text.splitlines()):
        if _ERROR.search(line) and not _WARNING.search(line):
            return line.strip()[:LINE_CHARS_MAX]
    return None


def last_error_line(path: Path) -> str | None:
    """Return the last error line near the end of a log file; None without one, or without the file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            return last_error_in(file.read().decode(errors="replace"))
    except FileNotFoundError:
        return None
