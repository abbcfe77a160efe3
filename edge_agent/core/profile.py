"""What differs between a device with numpy and one without: how events are held, and what is made of them.

There are two implementations, `edge_agent.core.arrays` with numpy and `edge_agent.lite.lists` without. They give the
same rows for the same events; only quantiles of large windows differ, for which the latter has no sketch.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from contracts.bundle import Windows as WindowsPlan
from contracts.contract import Contract
from edge_agent.core.codec.payload import Rows
from edge_agent.core.events import Column, Events, Holding, Mask, Seqs
from edge_agent.core.filter.outcomes import Explanation, Outcome
from edge_agent.core.windows.held import ClosedWindow
from edge_agent.core.windows.marks import WindowMark


class Verdict(Protocol):
    """What becomes of each event of a chunk: `codes` are places in `outcomes`."""

    @property
    def keep(self) -> Mask:
        """Which events travel."""
        ...

    @property
    def windowed(self) -> Mask:
        """Which events windows count."""
        ...

    @property
    def codes(self) -> Any:
        """One place in `outcomes` per event."""
        ...

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """The stream's table."""
        ...

    def refusals(self) -> list[tuple[Outcome, int]]:
        """Return how many events were not kept, for each outcome that occurred."""
        ...


class EventFilter(Protocol):
    """Decides which events travel, see `edge_agent.core.filter.filtering.Filter`."""

    @property
    def horizon_ms(self) -> int:
        """How long a kept event can bear on later ones."""
        ...

    def decide(self, events: Events) -> Verdict:
        """Return what becomes of events, and remember those that are kept where a rule asks for it."""
        ...

    def consider(self, events: Events) -> Verdict:
        """Decide as `decide` does, and remember nothing of it."""
        ...

    def spare(self) -> "EventFilter":
        """Return a filter that keeps everything, for a chunk that this one fails at."""
        ...

    def inherit(self, before: Any) -> None:
        """Remember what another bundle's filter of the same profile does, where the rules are the same."""
        ...

    def refill(self, events: Events, kept: Mask) -> None:
        """Remember what an earlier process kept of these events."""
        ...

    def forget(self) -> None:
        """Remember nothing any more."""
        ...

    def explain(self, events: Events) -> list[Explanation]:
        """Decide as `decide` does, and say for each event why."""
        ...

    def fill(self, columns: dict[str, Column], verdict: Any) -> dict[str, Column]:
        """Return the kept events' columns with `score` and `model`; the verdict is this filter's own."""
        ...


class OpenedWindows(Protocol):
    """The open windows of one stream, see `edge_agent.core.windows.open_windows.StreamWindows`."""

    sensors: tuple[str, ...]
    orphans: tuple[WindowMark, ...]

    @property
    def marks(self) -> tuple[WindowMark, ...]:
        """What is open."""
        ...

    def add(self, readings: Any) -> list[ClosedWindow]:
        """Take in what `Profile.readings` made; return the windows that closed."""
        ...

    def refill(self, readings: Any) -> None:
        """Put values back into windows whose marks were restored."""
        ...

    def resume_seq(self, next_seq: int) -> int:
        """Return the first event that must be read again to fill what is open."""
        ...

    def is_whole(self) -> bool:
        """Say whether all that is open holds as many events as its mark says."""
        ...

    def forgo(self) -> int:
        """Go on with what was refilled; return how many events that never travelled are gone."""
        ...

    def coarsen(self, factor: int) -> None:
        """Let windows that open from now on be so many times as long as planned."""
        ...

    def close_all(self) -> list[ClosedWindow]:
        """Close everything."""
        ...

    def close_except(self, plans: Collection[WindowsPlan]) -> list[ClosedWindow]:
        """Close what is open in other plans than these."""
        ...

    def take_over(self, before: Any) -> None:
        """Go on with what another bundle's windows have open in plans that both have."""
        ...


class SpoolPart(NamedTuple):
    """Rows of the spool, whether they travelled, and whether windows count them."""

    rows: Rows
    kept: bool
    windowed: bool


class Profile(Holding, Protocol):
    """How a device holds and treats events. Masks, numbers and columns given are of the profile's own kind."""

    @property
    def arrays(self) -> bool:
        """Whether the codec shall make numpy arrays."""
        ...

    def count(self, mask: Mask) -> int:
        """Return for how many events it is true."""
        ...

    def without(self, mask: Mask, other: Mask) -> Mask:
        """Return where the first is true and the second is not."""
        ...

    def neither(self, mask: Mask, other: Mask) -> Mask:
        """Return where none of the two is true."""
        ...

    def picked(self, values: Any, mask: Mask) -> Any:
        """Return those of a column, of numbers or of another mask for which a mask is true."""
        ...

    def bounds(self, column: Column) -> tuple[int, int]:
        """Return the least and the greatest of at least one whole number."""
        ...

    def sampled(self, seqs: Seqs, seed: int, fraction: float) -> Mask:
        """Say which events a sample takes; `contracts.sampling` defines it."""
        ...

    def windows(self, plans: Sequence[WindowsPlan], marks: Iterable[WindowMark]) -> OpenedWindows:
        """Return a stream's windows, with what an earlier process left open."""
        ...

    def readings(
        self, events: Events, subjects: Sequence[str], times_us: Column, sensors: Sequence[str], kept: Mask
    ) -> Any:
        """Return events as this profile's windows see them."""
        ...

    def merged(self, contract: Contract, parts: Sequence[SpoolPart]) -> tuple[Events, Mask, Mask]:
        """Return rows of the spool in the order of their numbers, and which of them are of parts with each mark."""
        ...
