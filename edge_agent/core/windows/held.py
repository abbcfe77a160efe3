"""What every kind of window is made of: parts of a chunk, aggregates that take them in, and the rows they end in.

There are two implementations of parts and aggregates, with numpy (`edge_agent.core`) and without (`edge_agent.lite`);
which events are in which window, and when a window closes, is decided once for both.
"""

from collections.abc import Collection, Iterable
from typing import Final, Generic, Protocol, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from contracts.bundle import Measure, Windows
from edge_agent.core.windows.marks import Counted, WindowMark

SEQ_MAX: Final = 2**63 - 1


class Part(Counted, Protocol):
    """Events of one subject in one chunk, in order of time, equal times in order of number."""

    @property
    def subject(self) -> str: ...
    @property
    def first_us(self) -> int: ...
    @property
    def last_us(self) -> int: ...

    def within(self, times_us: tuple[int, int], seqs: tuple[int, int] = (0, SEQ_MAX)) -> Self | None:
        """Return the events inside both ranges, ends included; None when there are none."""


PartT = TypeVar("PartT", bound=Part)
PartT_contra = TypeVar("PartT_contra", bound=Part, contravariant=True)


class Summary(Struct, frozen=True):
    """What a row says beyond its counts: values by measure, one per sensor; sketches as base64 text, or none."""

    measures: dict[Measure, list[float]]
    sketches: tuple[str, ...] = ()


class Aggregate(Protocol[PartT_contra]):
    """What is known of the events of one window or pane, by sensor. Sizes are in bytes."""

    @property
    def count(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...

    @property
    def least_bytes(self) -> int:
        """Size after `shrink` as often as it helps; it follows from `count` alone, so a restart changes nothing."""

    def take(self, part: PartT_contra) -> None:
        """Take in events."""

    def absorb(self, other: Self) -> None:
        """Take in what another one knows; the other stays as it is."""

    def copy(self) -> Self:
        """Return an equal one that changes on its own."""

    def shrink(self) -> bool:
        """Go over to the next smaller form; say whether there was one."""

    def summary(self, measures: Collection[Measure], *, sketch: bool) -> Summary:
        """Return what a row says."""


class Held(Generic[PartT]):
    """An open window or pane: its mark and values; of these, `refilled_kept` travelled and came back after a start."""

    __slots__ = ("aggregate", "mark", "refilled_kept")

    def __init__(self, mark: WindowMark, aggregate: Aggregate[PartT]) -> None:
        self.mark = mark
        self.aggregate = aggregate
        self.refilled_kept = 0

    def refill(self, part: PartT) -> None:
        """Take in events that the mark counts already."""
        self.aggregate.take(part)
        self.refilled_kept += part.kept

    def forgo(self) -> int:
        """Count only what came back; return how many events that did not travel are missing."""
        mark, there = self.mark, self.aggregate.count
        missing = (mark.count - mark.kept) - (there - self.refilled_kept)
        self.mark = msgspec.structs.replace(mark, count=there, kept=self.refilled_kept)
        return max(0, missing)


class ClosedWindow(Struct, frozen=True):
    """A window's row for each sensor: `mark` names the window, not a pane of it."""

    plan: Windows
    mark: WindowMark
    length_ms: int
    summary: Summary


Track: TypeAlias = tuple[str, Collection[Held[PartT]]]


class Kind(Protocol[PartT]):
    """The open windows of one plan. All that one subject has open is a track, and is closed together."""

    factor: int

    def restore(self, mark: WindowMark) -> None:
        """Open what a mark says, without values."""

    def refill(self, part: PartT) -> None:
        """Put back the values of events that are in a restored window; others are passed over."""

    def take(self, part: PartT) -> list[ClosedWindow]:
        """Take in events of one pane, or of one session; return what closed. Parts of a chunk come in order of time."""

    def flush(self, subject: str) -> list[ClosedWindow]:
        """Close all that a subject has open."""

    def forget(self, subject: str) -> None:
        """Let go of all that a subject has open, without rows."""

    def tracks(self) -> Iterable[Track[PartT]]:
        """Return every subject with what it has open."""
