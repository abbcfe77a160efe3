"""Batches that wait on the disk alone, and how they come into memory and out of it again."""

from collections.abc import Callable, Mapping
from typing import Final

from contracts.ranges import RangeSet
from edge_agent.core.spool.damage import Damage
from edge_agent.core.spool.spool import Spool
from edge_agent.core.uplink.sending import Lane, SendWindow

LOADED_BATCHES_MAX: Final = 3_072  # batches; three segments of places, about 1.5 MB of memory
BACKLOG_BATCHES_MIN: Final = 256  # batches; fewer, and the next segment is loaded before these are sent
LOAD_RETRY_S: Final = 5.0  # s; a disk that does not read now may later


class Backlog:
    """Segments of which no batch is in the window, oldest first."""

    def __init__(self, spool: Spool, window: SendWindow, say: Callable[[str], None]) -> None:
        self._spool = spool
        self._window = window
        self._say = say
        self._load_s = 0.0
        self.segments = [segment.number for segment in spool.segments if segment.number not in spool.done]

    def due_s(self) -> float | None:
        """Return when `load` has something to do."""
        return self._load_s if self.segments and self._window.backlog < BACKLOG_BATCHES_MIN else None

    def load(self, now_s: float, committed: Mapping[str, RangeSet]) -> tuple[Damage, ...]:
        """Take places into the window while it has few; what the lake holds already is passed over.

        Returns ranges that have rotted. A disk that does not read is asked again later.
        """
        damages: list[Damage] = []
        while self.segments and self._window.backlog < BACKLOG_BATCHES_MIN and now_s >= self._load_s:
            number = self.segments[0]
            try:
                loaded = self._spool.load(number, committed)
            except OSError as error:
                self._load_s = now_s + LOAD_RETRY_S
                self._say(f"spool: segment {number} cannot be read: {error.strerror}: trying again")
                break
            self.segments.pop(0)
            self._window.add(loaded.pending, Lane.BACKLOG)
            damages += loaded.damages
        return tuple(damages)

    def shed(self) -> None:
        """Leave segments to the disk until the window is small enough, the oldest that can be spared first."""
        active = self._spool.segments[-1].number
        spared = sorted(self._window.segments() - {active})
        while spared and len(self._window) > LOADED_BATCHES_MAX:
            if self._window.shed(number := spared.pop(0)):
                self.segments = sorted({*self.segments, number})

    def keep_what_is_owed(self) -> None:
        """Forget segments of which the lake holds everything by now."""
        owed = {segment.number for segment in self._spool.segments} - self._spool.done
        self.segments = [number for number in self.segments if number in owed]
