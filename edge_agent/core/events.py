"""Events as columns, and how one contract's lines of text become them."""

import math
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Meta, Struct

from contracts.contract import FLOATS, Contract, Field, FieldType
from edge_agent.core.refusal import EVENT_BYTES_MAX, REFUSED_SIZE, refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

Column: TypeAlias = "NDArray[Any] | array[Any] | list[Any]"
Seqs: TypeAlias = Any  # int64 numbers as the device's profile holds them: a numpy array, or an `array.array`
Mask: TypeAlias = Any  # a truth value per event, held likewise: a numpy array, or a list

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BOUNDS: Final = {FieldType.INT: (-(2**31), 2**31 - 1), FieldType.LONG: (-(2**63), 2**63 - 1)}


class Events(Struct, frozen=True):
    """Valid events of one contract: `columns` by field name, all as long as `seqs`.

    A required number or time (int64 us) is an array of the profile's kind, a required truth value too where that has
    arrays of them; everything else is a list in which None is null. `lines` are the events as they were read, `values`
    as structs of their fields; both empty when they come from the spool.
    """

    seqs: Seqs
    columns: dict[str, Column]
    lines: list[bytes]
    values: list[Any]

    def __len__(self) -> int:
        return len(self.seqs)


class Refused(Struct, frozen=True):
    """An event that fails its contract: `code` is `field.check`."""

    seq: int
    code: str
    line: bytes


class Checked(Struct, frozen=True):
    """What became of one chunk of lines; every line is in exactly one of the two."""

    events: Events
    refused: tuple[Refused, ...]


class Holding(Protocol):
    """How a device holds events: what reading them asks of its profile, see `edge_agent.core.profile`."""

    def integers(self, values: Sequence[int]) -> Seqs:
        """Return 64-bit numbers; a range is quick."""
        ...

    def column(self, field: Field, values: Sequence[Any]) -> Column:
        """Return checked values of a field, moments as us; None is null and stands only where the field allows it."""
        ...

    def not_finite(self, field: Field, column: Column) -> list[int]:
        """Return the places of floats that are infinite or not numbers in the width in which they travel."""
        ...

    def mask(self, truths: Sequence[bool]) -> Mask:
        """Return a truth value per event."""
        ...

    def select(self, events: Events, keep: Mask) -> Events:
        """Return the events for which the mask is true."""
        ...


class Reader:
    """Checks lines of JSON against one contract. `lax` also takes numbers and times that stand in quotes."""

    def __init__(self, contract: Contract, holding: Holding, *, lax: bool = False) -> None:
        self.contract = contract
        self._holding = holding
        self._lax = lax
        self._decoder = msgspec.json.Decoder(_struct_of(contract), strict=not lax)

    def read(self, first_seq: int, lines: Sequence[bytes]) -> Checked:
        """Check lines with sequence numbers from `first_seq` on. A field that the contract does not name is ignored."""
        try:
            if max(map(len, lines), default=0) > EVENT_BYTES_MAX:
                return self._one_by_one(first_seq, lines)
            values = list(map(self._decoder.decode, lines))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._one_by_one(first_seq, lines)
        seqs = self._holding.integers(range(first_seq, first_seq + len(lines)))
        return self._finite(seqs, values, list(lines), [])

    def _one_by_one(self, first_seq: int, lines: Sequence[bytes]) -> Checked:
        """Sort out a chunk in which some line fails; the good neighbours get through."""
        seqs: list[int] = []
        values: list[Any] = []
        good: list[bytes] = []
        refused: list[Refused] = []
        for seq, line in enumerate(lines, first_seq):
            if len(line) > EVENT_BYTES_MAX:
                refused.append(Refused(seq, REFUSED_SIZE, line))
                continue
            try:
                values.append(self._decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                refused.append(Refused(seq, refusal(self.contract, line, lax=self._lax), line))
                continue
            seqs.append(seq)
            good.append(line)
        return self._finite(self._holding.integers(seqs), values, good, refused)

    def _finite(self, seqs: Seqs, values: list[Any], lines: list[bytes], refused: list[Refused]) -> Checked:
        """Refuse rows with a float that is infinite or not a number, also one that is so only in 32 bits."""
        raw = dict(zip(_names(self.contract), zip(*map(msgspec.structs.astuple, values), strict=True), strict=False))
        columns = {field.name: self._holding.column(field, raw.get(field.name, ())) for field in self.contract.fields}
        bad: dict[int, str] = {}
        for field in self.contract.fields:
            if field.type in FLOATS:
                for row in self._holding.not_finite(field, columns[field.name]):
                    bad.setdefault(row, f"{field.name}.finite")
        if bad:
            refused.extend(Refused(int(seqs[row]), code, lines[row]) for row, code in bad.items())
            refused.sort(key=lambda entry: entry.seq)
            keep = self._holding.mask([row not in bad for row in range(len(seqs))])
            return Checked(self._holding.select(Events(seqs, columns, lines, values), keep), tuple(refused))
        return Checked(Events(seqs, columns, lines, values), tuple(refused))


def json_bytes(events: Events) -> int:
    """Return the size of the events as compact JSON lines, the newlines counted.

    The smaller of two ways to write them: as the source did, less its white space, and with the contract's fields only.
    """
    if not events.lines:
        return 0
    written = msgspec.json.format(b"[" + b",".join(events.lines) + b"]", indent=-1)
    return min(len(written), len(msgspec.json.encode(events.values))) - 1


def _names(contract: Contract) -> list[str]:
    return [field.name for field in contract.fields]


def _struct_of(contract: Contract) -> type[Struct]:
    """Return a struct whose decoding makes every check of the contract but finiteness."""
    fields: list[Any] = []
    for field in contract.fields:
        kind = _annotation(field)
        fields.append((field.name, kind) if field.required else (field.name, kind | None, None))
    return msgspec.defstruct(contract.id, fields, kw_only=True, gc=False, omit_defaults=True)


def _annotation(field: Field) -> Any:
    checks = field.checks
    if field.type is FieldType.STRING:
        if checks.valid_values is not None:
            return Literal[checks.valid_values]
        return Annotated[str, Meta(max_length=checks.max_length)] if checks.max_length is not None else str
    if field.type is FieldType.BOOLEAN:
        return bool
    if field.type is FieldType.TIMESTAMPTZ:
        return Annotated[datetime, Meta(tz=True)]
    if field.type in FLOATS:
        if checks.minimum is None and checks.maximum is None:
            return float
        return Annotated[float, Meta(ge=checks.minimum, le=checks.maximum)]
    low, high = _BOUNDS[field.type]
    low = low if checks.minimum is None else max(low, math.ceil(checks.minimum))
    high = high if checks.maximum is None else min(high, math.floor(checks.maximum))
    return Annotated[int, Meta(ge=low, le=high)]


def micros(moment: datetime) -> int:
    """Return a moment as microseconds since 1970."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
