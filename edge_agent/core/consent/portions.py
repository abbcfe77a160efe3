"""Events of a contract that needs consent, on their way into one flush: those of one person at a time."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

RULE: Final = "consent"  # as the ledger names it
REFUSED: Final = "refused"
OVERFLOW: Final = "pending_overflow"
NO_PERSON: Final = "no_person"


class Portion(Struct, frozen=True):
    """`lines` of one person, whose rows go under `key`; 0: of nobody, as they name none.

    Or, with a `reason`, `dropped` events of `dropped_bytes` that are only counted.
    """

    contract: str
    key: int = 0
    lines: tuple[bytes, ...] = ()
    dropped: int = 0
    dropped_bytes: int = 0
    reason: str = ""


class Portions:
    """What the next flush takes. Persons come in the order of their first event, their events in their own."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str | None], list[bytes]] = {}  # by contract and person
        self._dropped: dict[tuple[str, str], tuple[int, int]] = {}  # by contract and reason

    def __bool__(self) -> bool:
        return bool(self._lines or self._dropped)

    def add(self, contract: str, person: str | None, lines: Iterable[bytes]) -> None:
        """Add events of a person, or of nobody."""
        self._lines.setdefault((contract, person), []).extend(lines)

    def drop(self, contract: str, reason: str, events: int, size_bytes: int) -> None:
        """Add events that are only counted."""
        before, before_bytes = self._dropped.get((contract, reason), (0, 0))
        self._dropped[contract, reason] = before + events, before_bytes + size_bytes

    def refuse(self, person: str) -> None:
        """Only count what is there of a person."""
        for contract, whose in list(self._lines):
            if whose == person:
                lines = self._lines.pop((contract, whose))
                self.drop(contract, REFUSED, len(lines), sum(map(len, lines)))

    def take(self, keys: dict[str, int]) -> tuple[Portion, ...]:
        """Return all that is there, and begin anew; `keys` numbers the key of each person."""
        taken = [
            Portion(contract, keys[person] if person is not None else 0, tuple(lines))
            for (contract, person), lines in self._lines.items()
        ]
        taken += [
            Portion(contract, dropped=events, dropped_bytes=size_bytes, reason=reason)
            for (contract, reason), (events, size_bytes) in self._dropped.items()
        ]
        self._lines.clear()
        self._dropped.clear()
        return tuple(taken)
