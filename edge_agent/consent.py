"""Consent on a device: whose events may be written down and sent, and what a refusal does.

A contract may name a field with the person that an event is of. What such a person has decided is durable in a register
(`core.consent.register`), and their rows lie in blocks that hold nobody else's, under a key of their own.

A grant:

1. key       the person's key is durable. Crash after: a key that nobody names, destroyed at the next start.
2. decision  the register says granted. Crash after: what waited is gone with the memory; its producer was told so,
             sends it again, and then it is taken.
3. release   what waited goes into the next flush, with its own times and new numbers.
4. answer

A refusal, also one that takes back a grant:

1. decision  the register says refused, and which key must go. Crash after: the next start destroys that key before it
             opens the spool.
2. key       it is overwritten and removed, both synced. From here on nobody can read the person's rows on this device,
             however many there are.
3. memory    what waits is dropped, rules forget, offers that were not looked at yet are sent away, and batches on their
             way are sent no more. Crash after: there is no memory.
4. answer    the app hears of it; until then it asks again.
5. tell      a record holds the row of contract `consents` that says what was purged. Crash before: it is counted anew.
6. settle    batches that the lake has not: their rows were kept, and are dropped(consent, refused). Crash between two
             records of it: what a record has settled is passed over.
7. close     the register no longer knows the key's number.

Steps 5 to 7 are those of `edge_agent.consent_accounts`; 6 waits until the lake has said what it holds.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.contract import Contract
from contracts.malformed import MALFORMED
from contracts.ports import Clock
from edge_agent.core.consent import admission, register
from edge_agent.core.consent.person_keys import PersonKeys
from edge_agent.core.consent.portions import NO_PERSON, OVERFLOW, REFUSED, Portion, Portions
from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.core.consent.register import REGISTER_FILE, Register, Standing
from edge_agent.core.consent.waiting import Held, Waiting
from edge_agent.core.sources.admissions import Admissions, Answer
from edge_agent.core.sources.offers import Decided, Offered, Outcome, Settled, Wish, busy
from edge_agent.core.sources.producers import key_of
from edge_agent.errors import ConsentError
from edge_agent.ports import Disk

FULL: Final = "consent_full"


class ConsentReport(Struct, frozen=True):
    """`waiting_*` is what is in memory only; `open_decisions` are not in the ledger yet."""

    granted: int
    refused: int
    waiting_persons: int
    waiting_events: int
    waiting_bytes: int
    open_decisions: int


class ConsentDesk:
    """Sorts events by what their persons have decided, and takes decisions. Runs in the agent's thread.

    `withdraw` is called with the number of a key that was destroyed, `make_room` with the error of a full disk.
    """

    def __init__(self, disk: Disk, pseudonyms: Pseudonyms, keys: PersonKeys, clock: Clock) -> None:
        self.contracts: frozenset[str] = frozenset()
        self.withdraw: Callable[[int], None] = lambda _key: None
        self.make_room: Callable[[OSError], bool] = lambda _error: False
        self._begun_s = clock.monotonic_s()
        self._refused_s: dict[int, float] = {}  # when, by number of the decision
        self._fields: dict[str, str | None] = {}
        self._readers: dict[str, msgspec.json.Decoder[Any]] = {}
        self._disk = disk
        self._pseudonyms = pseudonyms
        self._keys = keys
        self._clock = clock
        self._waiting = Waiting()
        self._portions = Portions()
        self._undestroyed: set[int] = set()
        self.register = self._opened()

    def concern(self, contracts: Iterable[Contract]) -> None:
        """Follow people's decisions for these contracts, those of the bundle in force that need consent."""
        fields = {contract.id: contract.consent_field for contract in contracts}
        if fields != self._fields:
            self._fields = fields
            self._readers = {name: _reader(field) for name, field in fields.items() if field is not None}
            self.contracts = frozenset(self._readers)

    @property
    def is_used(self) -> bool:
        """Say whether there is somebody to ask, or was."""
        return bool(self.contracts or self.register.entries or self.register.open)

    def refused_s(self, number: int) -> float:
        """Return since when nothing more was sent of the person of a decision, monotonic s."""
        return self._refused_s.get(number, self._begun_s)

    @property
    def is_due(self) -> bool:
        """Say whether events are ready for the next flush."""
        return bool(self._portions)

    @property
    def is_unfinished(self) -> bool:
        """Say whether a key is still there that should not be."""
        return bool(self._undestroyed)

    def report(self) -> ConsentReport:
        """Return the present counts."""
        standings = [entry.standing for entry in self.register.entries.values()]
        return ConsentReport(
            granted=standings.count(Standing.GRANTED),
            refused=standings.count(Standing.REFUSED),
            waiting_persons=self._waiting.persons,
            waiting_events=len(self._waiting),
            waiting_bytes=self._waiting.size_bytes,
            open_decisions=len(self.register.open),
        )

    def take(self, offered: Offered, admissions: Admissions) -> None:
        """Take in an offer of a contract that needs consent, and note its answer."""
        if offered.producer is not None:
            offered = msgspec.structs.replace(offered, producer=self._pseudonyms.producer(offered.producer))
        key = key_of(offered) if offered.producer is not None else None
        first = offered.first_number if key is not None and offered.lines else None
        waiting = self._waiting.numbers(key) if key is not None else frozenset()
        known = 0 if first is None else sum(first + place in waiting for place in range(len(offered.lines)))
        opening = admission.opening_of(admissions.producers, offered, waiting)
        if opening.refusal is not None:
            admissions.note(Answer(offered.source, offered.ticket, opening.refusal), opening.producers, has_new=False)
            return
        begun = self._waiting.next_serial
        done: dict[str, list[int]] = {}
        for place in opening.places:
            number = first + place if first is not None else None
            is_done = self._sort(offered.contract, offered.lines[place], key if first is not None else None, number)
            if is_done and key is not None and number is not None:
                done.setdefault(key, []).append(number)
        for held in self._waiting.overflow():
            self._portions.drop(held.contract, OVERFLOW, 1, len(held.line))
            if held.producer is not None and held.number is not None:
                done.setdefault(held.producer, []).append(held.number)
        producers = opening.producers
        for name, numbers in done.items():
            producers = admission.closed(producers, name, numbers)
        still = (
            self._waiting.since(begun)
            if first is None or key is None
            else admission.open_in(producers, key, first, len(offered.lines))
        )
        duplicate = len(offered.lines) - len(opening.places) - known
        settled = Settled(
            Outcome.TAKEN,
            accepted=len(offered.lines) - duplicate - still,
            duplicate=duplicate,
            next_number=producers.next_number(key) if key is not None else None,
            held=still,
            held_from=admission.held_from(producers, key) if key is not None else None,
        )
        admissions.note(Answer(offered.source, offered.ticket, settled), producers, has_new=bool(self._portions))

    def portions(self) -> tuple[Portion, ...]:
        """Return what the next flush takes."""
        keys = {person: entry.key for person, entry in self.register.entries.items()} if self._portions else {}
        return self._portions.take(keys)

    def decide(self, name: str, wish: Wish, admissions: Admissions) -> Settled:
        """Follow a person's decision, or say what holds; see the module's text. Asked again it changes nothing."""
        person = self._pseudonyms.person(name)
        standing = self.register.standing(person)
        purged = 0
        try:
            if wish is Wish.GRANT and standing is not Standing.GRANTED:
                self._grant(person, admissions)
            elif wish is Wish.REFUSE and standing is not Standing.REFUSED:
                purged = self._refuse(person, admissions)
            self.destroy_rest()
        except ConsentError as error:
            return Settled(Outcome.REFUSED, code=FULL, reason=str(error))
        except OSError as error:
            return busy(f"not done yet: the disk does not take it: {error.strerror}: ask again")
        entry = self.register.entries.get(person)
        waiting = sum(self._waiting.counts(person).values())
        decided = Decided(
            self.register.standing(person).value, entry.decision if entry is not None else None, waiting, purged
        )
        return Settled(Outcome.TAKEN, decided=decided)

    def destroy_rest(self) -> None:
        """Destroy keys that the disk did not let go of when it should have. Raises OSError."""
        for key in list(self._undestroyed):
            self._keys.destroy(key)
            self._undestroyed.discard(key)

    def close(self, number: int) -> None:
        """Forget the key of a decision that is accounted for (step 7). Raises OSError."""
        self._write(register.closed(self.register, number))
        self._refused_s.pop(number, None)

    def _grant(self, person: str, admissions: Admissions) -> None:
        waited = self._waiting.counts(person)
        key = self._keys.make()  # Step 1.
        try:
            self._write(register.granted(self.register, person, key, waited, self._clock.now_ms()))  # Step 2.
        except (OSError, ConsentError):
            self._undestroyed.add(key)
            raise
        released = self._waiting.take(person)  # Step 3.
        for held in released:
            self._portions.add(held.contract, person, (held.line,))
        self._account(released, admissions)

    def _refuse(self, person: str, admissions: Admissions) -> int:
        waited = self._waiting.counts(person)
        entry = self.register.entries.get(person)
        self._write(register.refused(self.register, person, waited, self._clock.now_ms()))  # Step 1.
        self._refused_s[self.register.entries[person].decision] = self._clock.monotonic_s()
        key = entry.key if entry is not None else 0
        if key:
            self._undestroyed.add(key)
            try:
                self.destroy_rest()  # Step 2.
            except OSError:
                self._drop(person, key, admissions)  # What can be done is; the caller goes on trying.
                raise
        return self._drop(person, key, admissions)  # Step 3.

    def _drop(self, person: str, key: int, admissions: Admissions) -> int:
        dropped = self._waiting.take(person)
        for held in dropped:
            self._portions.drop(held.contract, REFUSED, 1, len(held.line))
        self._portions.refuse(person)
        self._account(dropped, admissions)
        if key:
            self.withdraw(key)
        return len(dropped)

    def _account(self, events: Iterable[Held], admissions: Admissions) -> None:
        """Let producers' marks say what holds once the next flush is durable."""
        numbers: dict[str, list[int]] = {}
        for held in events:
            if held.producer is not None and held.number is not None:
                numbers.setdefault(held.producer, []).append(held.number)
        for name, found in numbers.items():
            admissions.producers = admission.closed(admissions.producers, name, found)

    def _sort(self, contract: str, line: bytes, producer: str | None, number: int | None) -> bool:
        """Put an event where it belongs; say whether the next flush accounts for it."""
        try:
            name = self._readers[contract].decode(line).person
        except MALFORMED:
            self._portions.add(contract, None, (line,))
            return True
        if not name:
            self._portions.drop(contract, NO_PERSON, 1, len(line))
            return True
        person = self._pseudonyms.person(name)
        match self.register.standing(person):
            case Standing.GRANTED:
                self._portions.add(contract, person, (line,))
            case Standing.REFUSED:
                self._portions.drop(contract, REFUSED, 1, len(line))
            case _:
                self._waiting.add(contract, person, line, producer, number)
                return False
        return True

    def _opened(self) -> Register:
        """Read the register, and finish what a crash interrupted. Raises ConsentError, OSError."""
        found = Register()
        if REGISTER_FILE in self._disk.names():
            found = register.decode(self._disk.read(REGISTER_FILE), self._pseudonyms)
        missing = self._keys.load(found.keys)
        for person, entry in list(found.entries.items()):
            if entry.key in missing:
                found = register.rekeyed(found, person, self._keys.make())
        if missing:
            self._disk.replace(REGISTER_FILE, register.encode(found, self._pseudonyms))
        self._keys.withdrawn = found.withdrawn
        return found

    def _write(self, changed: Register) -> None:
        data = register.encode(changed, self._pseudonyms)
        try:
            self._disk.replace(REGISTER_FILE, data)
        except OSError as error:
            if not self.make_room(error):
                raise
            self._disk.replace(REGISTER_FILE, data)
        self.register = changed
        self._keys.withdrawn = changed.withdrawn


def _reader(field: str) -> "msgspec.json.Decoder[Any]":
    """Return what reads the person that an event is of, as the contract's own reader does."""
    return msgspec.json.Decoder(msgspec.defstruct("OfPerson", [("person", str)], rename={"person": field}))
