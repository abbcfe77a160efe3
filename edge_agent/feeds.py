"""The sources that the agent reads at its own pace, and what of them is due."""

from collections.abc import Sequence

from msgspec import Struct

from edge_agent.core.sources.pacing import CHUNK_EVENTS_MAX, due_events
from edge_agent.ports import Source


class Arrived(Struct, frozen=True):
    """Lines by contract; streams in `final` have ended with these."""

    lines: dict[str, list[bytes]]
    final: frozenset[str]


class Feed:
    """A source whose events are numbered by their places in it; rate 0 is as fast as it goes.

    A flush takes at most `events_max` of them; when there were more, the next one follows at once.
    """

    def __init__(
        self,
        contract: str,
        source: Source,
        rate_events_per_s: float,
        flush_interval_s: float,
        events_max: int = CHUNK_EVENTS_MAX,
    ) -> None:
        self.contract = contract
        self.source = source
        self.is_done = False
        self.due_s = 0.0
        self._rate = rate_events_per_s
        self._flush_interval_s = flush_interval_s
        self._events_max = events_max
        self._started_s: float | None = None
        self._taken = 0

    def take(self, now_s: float) -> list[bytes]:
        """Return what is due now; the source is done once it had no more to give."""
        if self._started_s is None:
            self._started_s = now_s
        due = due_events(self._rate, now_s - self._started_s, self._taken, self._events_max)
        lines = self.source.read(due)
        self._taken += len(lines)
        at_end = self.source.at_end
        goes_on = self._rate == 0 and (lines or at_end)
        self.due_s = now_s if goes_on or len(lines) == self._events_max else now_s + self._flush_interval_s
        self.is_done = at_end and not lines
        return lines


class Feeds:
    """All sources of that kind, of different contracts."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = tuple(feeds)

    @property
    def is_done(self) -> bool:
        """Say whether every source has been read to its end."""
        return all(feed.is_done for feed in self._feeds)

    @property
    def due_s(self) -> float | None:
        """When the next one is due; None when none will be."""
        return min((feed.due_s for feed in self._feeds if not feed.is_done), default=None)

    def take(self, now_s: float) -> Arrived:
        """Return what is due of each."""
        lines: dict[str, list[bytes]] = {}
        for feed in self._feeds:
            if not feed.is_done and now_s >= feed.due_s:
                lines[feed.contract] = feed.take(now_s)
        final = frozenset(feed.contract for feed in self._feeds if feed.is_done)
        return Arrived({contract: part for contract, part in lines.items() if part}, final)

    def close(self) -> None:
        """Close all."""
        for feed in self._feeds:
            feed.source.close()
