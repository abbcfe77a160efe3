"""A writer's rounds that are not settled yet. Pure: a table of what is open, driven by what its caller has done.

A round goes through these stages, for each table by itself:

    writing ──files are there──> ready ──quarantine settled, if it waits──> handed over ──settlement──> settled

The *floors* are where the oldest round that is not settled began: every message below them is settled in every table.
"""

from collections.abc import Iterator

from msgspec import Struct

from lakehouse.handover import Claim, DataFileForm
from lakehouse.plan import Round, TablePart
from lakehouse.positions import Positions
from lakehouse.rows import QUARANTINE

Files = tuple[DataFileForm, ...]


class Flight(Struct):
    """One round under way: `waiting` are parts that are not handed over, `open` are contracts by handover number.

    `offsets` are those of open handovers in their partitions.
    """

    # Before its files are stored nothing of it can be settled.
    is_stored: bool

    round: Round
    waiting: dict[str, tuple[TablePart, Files]]
    open: dict[int, str]
    offsets: dict[int, int]

    @property
    def is_settled(self) -> bool:
        """Say whether nothing of it is open."""
        return self.is_stored and not self.waiting and not self.open


class Flights:
    """The rounds of one writer, oldest first."""

    def __init__(self, begins: Positions) -> None:
        self._flights: list[Flight] = []
        self._ends = begins
        self._released: list[Claim] = []
        self._cap: Positions | None = None

    def __len__(self) -> int:
        return len(self._flights)

    def begin(self, planned: Round) -> Flight:
        """Take over a round whose files are being written."""
        flight = Flight(False, planned, {}, {}, {})
        self._flights.append(flight)
        return flight

    def stored(self, flight: Flight, files: dict[str, Files]) -> None:
        """Note that a round's files are there; contracts without an entry in `files` are left to a later start."""
        planned = flight.round
        lacks_quarantine = any(part.contract == QUARANTINE for part in planned.parts) and QUARANTINE not in files
        flight.is_stored = True
        flight.waiting = {
            part.contract: (part, files[part.contract])
            for part in planned.parts
            if part.contract in files and not (part.waits and lacks_quarantine)
        }
        if len(flight.waiting) < len(planned.parts) or planned.parked:
            self.hold()
        self._settle()

    def hold(self) -> None:
        """Let no floor go beyond where it is now: something that lies above it is not going to be settled."""
        if self._cap is None:
            self._cap = self.floors

    def ready(self) -> Iterator[tuple[Flight, TablePart, Files]]:
        """Yield what may be handed over now, the quarantine's part of a round first."""
        for flight in self._flights:
            for part, files in list(flight.waiting.values()):
                needs = part.waits and (QUARANTINE in flight.waiting or QUARANTINE in flight.open.values())
                if not needs:
                    yield flight, part, files

    def handed_over(self, flight: Flight, contract: str, number: int) -> None:
        """Note that a part is on its way."""
        del flight.waiting[contract]
        flight.open[number] = contract

    def settled(self, number: int) -> None:
        """Note that a handover is in its table; one that is not open changes nothing."""
        for flight in self._flights:
            flight.open.pop(number, None)
        self._settle()

    def is_unheard(self, contract: str, heard: int) -> bool:
        """Say whether a handover to a table is open that its committer does not hear any more."""
        return any(
            name == contract and flight.offsets.get(number, heard) < heard
            for flight in self._flights
            for number, name in flight.open.items()
        )

    @property
    def floors(self) -> Positions:
        """Where the oldest open round began."""
        if self._cap is not None:
            return self._cap
        return self._flights[0].round.begins if self._flights else self._ends

    def take_released(self) -> tuple[Claim, ...]:
        """Return once what the quarantine need not hold any more: its messages lie below the floors."""
        found, self._released = tuple(self._released), []
        return found

    def _settle(self) -> None:
        while self._flights and self._flights[0].is_settled:
            flight = self._flights.pop(0)
            self._ends = flight.round.ends
            if self._cap is None:
                self._released.extend(flight.round.releases)
