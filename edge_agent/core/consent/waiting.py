"""Events of people who have not decided: in memory, and nowhere else.

They wait in the order in which they came. When there is no more room the oldest go.
"""

from collections.abc import Collection, Iterator
from typing import Final

from msgspec import Struct

EVENTS_MAX: Final = 4_000  # events; as many as one flush may have, so that a grant lets all of a person's go at once
BYTES_MAX: Final = 2_097_152  # bytes of lines; half of what one flush may have
RUNS_MAX: Final = 512  # runs of numbers in a row; each takes some 10 bytes in every record of the spool


class Held(Struct, frozen=True):
    """One event. `producer` is the key of its producer's mark and `number` the producer's own; both may be None."""

    serial: int
    contract: str
    person: str
    line: bytes
    producer: str | None = None
    number: int | None = None


class Waiting:
    """All that waits on a device."""

    def __init__(self) -> None:
        self._events: dict[int, Held] = {}
        self._persons: dict[str, dict[int, None]] = {}
        self._numbers: dict[str, set[int]] = {}
        self._runs = 0
        self.size_bytes = 0
        self.next_serial = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def persons(self) -> int:
        """How many people these events are of."""
        return len(self._persons)

    def add(self, contract: str, person: str, line: bytes, producer: str | None, number: int | None) -> None:
        """Take an event in; `overflow` says which must go for it."""
        held = Held(self.next_serial, contract, person, line, producer, number)
        self.next_serial += 1
        self._events[held.serial] = held
        self._persons.setdefault(person, {})[held.serial] = None
        self.size_bytes += len(line)
        if producer is not None and number is not None:
            numbers = self._numbers.setdefault(producer, set())
            self._runs += 1 - (number - 1 in numbers) - (number + 1 in numbers)
            numbers.add(number)

    def numbers(self, producer: str) -> Collection[int]:
        """Return the numbers of a producer's events that wait."""
        return self._numbers.get(producer, frozenset())

    def since(self, serial: int) -> int:
        """Return how many events wait that were added since `next_serial` was this."""
        found = 0
        for last in reversed(self._events):
            if last < serial:
                break
            found += 1
        return found

    def overflow(self) -> Iterator[Held]:
        """Give up the oldest events until the others fit."""
        while len(self._events) > EVENTS_MAX or self.size_bytes > BYTES_MAX or self._runs > RUNS_MAX:
            yield self._remove(next(iter(self._events)))

    def counts(self, person: str) -> dict[str, int]:
        """Return how many events of a person wait, by contract."""
        found: dict[str, int] = {}
        for serial in self._persons.get(person, ()):
            contract = self._events[serial].contract
            found[contract] = found.get(contract, 0) + 1
        return found

    def take(self, person: str) -> list[Held]:
        """Return a person's events in their order; they wait no longer."""
        return [self._remove(serial) for serial in list(self._persons.get(person, ()))]

    def _remove(self, serial: int) -> Held:
        held = self._events.pop(serial)
        serials = self._persons[held.person]
        del serials[serial]
        if not serials:
            del self._persons[held.person]
        self.size_bytes -= len(held.line)
        if held.producer is not None and held.number is not None:
            numbers = self._numbers[held.producer]
            numbers.remove(held.number)
            self._runs -= 1 - (held.number - 1 in numbers) - (held.number + 1 in numbers)
            if not numbers:
                del self._numbers[held.producer]
        return held
