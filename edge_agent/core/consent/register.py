"""What each person has decided, as one value and the file that holds it.

Who is not in it has decided nothing. Persons stand there under their pseudonyms, with the number of the key under which
their rows are; of a refusal no such number is left once its rows are accounted for.
"""

from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from edge_agent.core.consent.pseudonyms import Pseudonyms
from edge_agent.errors import ConsentError

REGISTER_FILE: Final = "consent.json"
PERSONS_MAX: Final = 4_096  # persons; each takes some 90 bytes of a file that a decision writes anew, and a key's file
OPEN_MAX: Final = 1_024  # decisions that nothing accounts for yet; a refusal is taken in any case


class Standing(Enum):
    """What a person has decided; the value is the word in answers and rows."""

    UNKNOWN = "unknown"
    GRANTED = "granted"
    REFUSED = "refused"


class Entry(Struct, frozen=True, array_like=True):
    """A person's newest decision. `key` numbers the key of their rows, 0 without one."""

    standing: Standing
    decision: int
    key: int = 0


class Decision(Struct, frozen=True, array_like=True):
    """A decision that is not accounted for. `key` is the one that a refusal destroys, 0 when there is none.

    `waited` says by contract how many events had waited in memory.
    """

    number: int
    person: str
    standing: Standing
    decided_at_ms: int
    key: int = 0
    waited: dict[str, int] = {}


class Register(Struct, frozen=True):
    """All decisions. `open` are the ones that are not accounted for, oldest first."""

    entries: dict[str, Entry] = {}
    open: tuple[Decision, ...] = ()
    next_number: int = 1

    def standing(self, person: str) -> Standing:
        """Return what holds for a person."""
        entry = self.entries.get(person)
        return entry.standing if entry is not None else Standing.UNKNOWN

    @property
    def keys(self) -> frozenset[int]:
        """Numbers of the keys that must be there."""
        return frozenset(entry.key for entry in self.entries.values() if entry.key)

    @property
    def withdrawn(self) -> frozenset[int]:
        """Numbers of the keys that were destroyed and whose blocks are not accounted for."""
        return frozenset(decision.key for decision in self.open if decision.key)


def granted(register: Register, person: str, key: int, waited: dict[str, int], now_ms: int) -> Register:
    """Return the register after a grant under a key of its own. Raises ConsentError when it is full."""
    return _decided(register, person, Standing.GRANTED, key, 0, waited, now_ms)


def refused(register: Register, person: str, waited: dict[str, int], now_ms: int) -> Register:
    """Return the register after a refusal, which leaves no key. Raises ConsentError when it is full."""
    entry = register.entries.get(person)
    return _decided(register, person, Standing.REFUSED, 0, entry.key if entry is not None else 0, waited, now_ms)


def closed(register: Register, number: int) -> Register:
    """Return the register without a decision that is accounted for."""
    return replace(register, open=tuple(decision for decision in register.open if decision.number != number))


def rekeyed(register: Register, person: str, key: int) -> Register:
    """Return the register with another key for a person whose key was lost."""
    return replace(register, entries=register.entries | {person: replace(register.entries[person], key=key)})


def encode(register: Register, pseudonyms: Pseudonyms) -> bytes:
    """Return the file's content, which nobody without the device's key can forge."""
    state = msgspec.json.encode(register)
    return msgspec.json.encode({"checksum": pseudonyms.checksum(state), "state": msgspec.Raw(state)})


def decode(data: bytes, pseudonyms: Pseudonyms) -> Register:
    """Parse the file's content. Raises ConsentError."""
    try:
        outer = msgspec.json.decode(data, type=_Checked)
        if pseudonyms.checksum(bytes(outer.state)) == outer.checksum:
            return msgspec.json.decode(outer.state, type=Register)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConsentError(_unreadable(str(error))) from error
    raise ConsentError(_unreadable("its checksum is another"))


class _Checked(Struct, frozen=True):
    checksum: str
    state: msgspec.Raw


def _decided(
    register: Register, person: str, standing: Standing, key: int, destroyed: int, waited: dict[str, int], now_ms: int
) -> Register:
    if person not in register.entries and len(register.entries) >= PERSONS_MAX:
        raise ConsentError(f"consent: {PERSONS_MAX} persons have decided on this device, it can remember no more")
    if standing is Standing.GRANTED and len(register.open) >= OPEN_MAX:
        raise ConsentError(f"consent: {OPEN_MAX} decisions wait to be accounted for: let the device go online first")
    number = register.next_number
    decision = Decision(number, person, standing, now_ms, destroyed, waited)
    entries = register.entries | {person: Entry(standing, number, key)}
    return Register(entries, (*register.open, decision), number + 1)


def _unreadable(why: str) -> str:
    return (
        f"{REGISTER_FILE}: expected what this device wrote with its key: {why}: put back the file or the key; without "
        "it nobody knows who has refused, and the spool's folder must be moved away"
    )
