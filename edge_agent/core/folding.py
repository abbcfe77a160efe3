"""Which log lines are written, so that no burst fills a disk: repeats are counted, and there is a limit on all of them.

Lines of one kind differ only in their numbers. In each interval the first few of a kind are written, the others counted
and told in one line once the interval is over; beyond a number of lines of all kinds everything is only counted.
"""

import re
from typing import Final

from msgspec import Struct

INTERVAL_S: Final = 60.0  # s
SAME_MAX: Final = 5  # lines of a kind per interval: enough to see that it repeats and how quickly
LINES_MAX: Final = 120  # lines per interval: with LINE_CHARS_MAX 250 KB, if somebody provokes a line of each kind
KINDS_MAX: Final = 200  # kinds remembered; what comes beyond is counted together
LINE_CHARS_MAX: Final = 1_024  # characters; the longest message that says what to do has some 400
KIND_CHARS_MAX: Final = 120  # of a line, its numbers left out: what follows them seldom makes another kind

_NUMBER: Final = re.compile(r"[0-9]+")
_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"
    r"|\b(Bearer|Basic)\s+[^\s'\",;]+"
    r"|\b(password|passwd|token|secret|api_?key)\b(['\"]?\s*[=:]\s*)['\"]?[^\s'\",;&]+",
    re.IGNORECASE | re.DOTALL,
)


class Line(Struct, frozen=True):
    """A line of the log; `level` is one of `logging`."""

    level: int
    logger: str
    text: str


class Repeated(Struct, frozen=True):
    """`count` lines like this one were not written; None stands for lines of many kinds."""

    like: Line | None
    count: int


class Folding:
    """Decides about lines. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._lines = 0
        self._seen: dict[str, int] = {}
        self._first: dict[str, Line] = {}
        self._unwritten: dict[str, int] = {}

    def admits(self, line: Line, now_s: float) -> bool:
        """Say whether a line is to be written; call `due` before, which ends an interval that is over."""
        if self._since_s is None:
            self._since_s = now_s
        kind = kind_of(line)
        if kind not in self._seen and len(self._seen) >= KINDS_MAX:
            kind = ""
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        if kind and seen <= SAME_MAX and self._lines < LINES_MAX:
            self._first.setdefault(kind, line)
            self._lines += 1
            return True
        # What was never written is not quoted either: the limit is on what may be.
        key = kind if kind in self._first else ""
        self._unwritten[key] = self._unwritten.get(key, 0) + 1
        return False

    def due(self, now_s: float, *, ends: bool = False) -> tuple[Repeated, ...]:
        """Return what was not written, once the interval is over or when the process `ends`; a new one begins."""
        if self._since_s is None or (0 <= now_s - self._since_s < INTERVAL_S and not ends):
            return ()
        found = tuple(Repeated(self._first.get(kind), count) for kind, count in self._unwritten.items())
        self._since_s, self._lines = None, 0
        self._seen.clear()
        self._first.clear()
        self._unwritten.clear()
        return found


def kind_of(line: Line) -> str:
    """Return what lines have in common that differ only in their numbers."""
    text = _NUMBER.sub("#", line.text[: 2 * KIND_CHARS_MAX])
    return f"{line.level} {line.logger} {text}"[:KIND_CHARS_MAX]


def cleaned(text: str) -> str:
    """Return one line of bounded length without control characters, and without what looks like a secret."""
    # Cut first: the pattern for keys reads up to the end.
    shown = _SECRET.sub("[secret left out]", text[: 4 * LINE_CHARS_MAX])
    shown = "".join(c if c.isprintable() else " " for c in shown)
    return shown if len(shown) <= LINE_CHARS_MAX else shown[: LINE_CHARS_MAX - 1] + "…"
