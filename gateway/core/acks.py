"""Which acknowledgement documents are due: watermarks merged per origin, published at most every 50 ms each."""

from typing import Final

from contracts import watermark
from contracts.watermark import AckDocument, Watermark

PAUSE_S: Final = 0.05  # seconds between two documents of one origin; the lake commits every 250 ms per table


class AckPlan:
    """The newest document of every origin, and which of them the broker does not have yet.

    Not thread-safe: one thread owns it. Times are monotonic seconds. Memory grows with the number of origins, about
    1 KB each.
    """

    def __init__(self, pause_s: float = PAUSE_S) -> None:
        self._pause_s = pause_s
        self._documents: dict[str, AckDocument] = {}
        self._due_s: dict[str, float] = {}
        self._published_s: dict[str, float] = {}

    @property
    def origins(self) -> int:
        """Origins that have a document."""
        return len(self._documents)

    def note(self, mark: Watermark, now_s: float) -> bool:
        """Merge a watermark; say whether it changed its origin's document, which then becomes due."""
        before = self._documents.get(mark.origin, AckDocument(mark.origin))
        after = watermark.advance(before, mark)
        if after == before:
            return False
        self._documents[mark.origin] = after
        if mark.origin not in self._due_s:
            self._due_s[mark.origin] = self._earliest_s(mark.origin, now_s)
        return True

    def republish(self, now_s: float) -> None:
        """Make every document due: the broker may have been wiped."""
        for origin in self._documents:
            if origin not in self._due_s:
                self._due_s[origin] = self._earliest_s(origin, now_s)

    def take(self, now_s: float, limit: int) -> tuple[AckDocument, ...]:
        """Return at most `limit` due documents, longest due first, and count them as published."""
        due = sorted((at_s, origin) for origin, at_s in self._due_s.items() if at_s <= now_s)[: max(limit, 0)]
        for _, origin in due:
            del self._due_s[origin]
            self._published_s[origin] = now_s
        return tuple(self._documents[origin] for _, origin in due)

    def next_due_s(self) -> float | None:
        """Return when the next document is due, None when the broker has them all."""
        return min(self._due_s.values(), default=None)

    def _earliest_s(self, origin: str, now_s: float) -> float:
        published_s = self._published_s.get(origin)
        return now_s if published_s is None else max(now_s, published_s + self._pause_s)
