"""Events as columns, and how one contract's lines of text become them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from contracts.contract import FLOATS, Contract, Field, FieldType
from edge_agent.core.refusal import EVENT_BYTES_MAX, REFUSED_SIZE, refusal

Column: TypeAlias = NDArray[Any] | list[Any]
Seqs: TypeAlias = NDArray[np.int64]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BOUNDS: Final = {FieldType.INT: (-(2**31), 2**31 - 1), FieldType.LONG: (-(2**63), 2**63 - 1)}
_NUMPY: Final[dict[FieldType, Any]] = {
    FieldType.INT: np.int32,
    FieldType.LONG: np.int64,
    FieldType.TIMESTAMPTZ: np.int64,
    FieldType.FLOAT: np.float32,
    FieldType.DOUBLE: np.float64,
    FieldType.BOOLEAN: np.bool_,
}


class Events(Struct, frozen=True):
    """Valid events of one contract: `columns` by field name, all as long as `seqs`.

    A required number, truth value or time (int64 us) is a numpy array; everything else a list in which None is null.
    `lines` are the events as they were read, `values` as structs of their fields; both empty when they come from the
    spool.
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


class Reader:
    """Checks lines of JSON against one contract. `lax` also takes numbers and times that stand in quotes."""

    def __init__(self, contract: Contract, *, lax: bool = False) -> None:
        self.contract = contract
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
        seqs = np.arange(first_seq, first_seq + len(lines), dtype=np.int64)
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
        return self._finite(np.array(seqs, dtype=np.int64), values, good, refused)

    def _finite(self, seqs: Seqs, values: list[Any], lines: list[bytes], refused: list[Refused]) -> Checked:
        """Refuse rows with a float that is infinite or not a number, also one that is so only in 32 bits."""
        raw = dict(zip(_names(self.contract), zip(*map(msgspec.structs.astuple, values), strict=True), strict=False))
        columns = {field.name: _column(field, raw.get(field.name, ())) for field in self.contract.fields}
        bad: dict[int, str] = {}
        for field in self.contract.fields:
            if field.type in FLOATS:
                for row in _not_finite(field, columns[field.name]):
                    bad.setdefault(row, f"{field.name}.finite")
        if bad:
            refused.extend(Refused(int(seqs[row]), code, lines[row]) for row, code in bad.items())
            refused.sort(key=lambda entry: entry.seq)
            keep = np.array([row not in bad for row in range(len(seqs))], dtype=np.bool_)
            return Checked(select(Events(seqs, columns, lines, values), keep), tuple(refused))
        return Checked(Events(seqs, columns, lines, values), tuple(refused))


def select(events: Events, keep: NDArray[np.bool_]) -> Events:
    """Return the events for which the mask is true."""
    if keep.all():
        return events
    rows = np.flatnonzero(keep).tolist()
    columns: dict[str, Column] = {
        name: column[keep] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in events.columns.items()
    }
    lines = [events.lines[row] for row in rows] if events.lines else []
    values = [events.values[row] for row in rows] if events.values else []
    return Events(events.seqs[keep], columns, lines, values)


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
    low = low if checks.minimum is None else max(low, int(np.ceil(checks.minimum)))
    high = high if checks.maximum is None else min(high, int(np.floor(checks.maximum)))
    return Annotated[int, Meta(ge=low, le=high)]


def _column(field: Field, values: Sequence[Any]) -> Column:
    if field.type is FieldType.TIMESTAMPTZ:
        if field.required:
            since = [moment - _EPOCH for moment in values]
            return np.array(since, dtype="timedelta64[us]").astype(np.int64)
        return [None if moment is None else _micros(moment) for moment in values]
    if field.required and field.type is not FieldType.STRING:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=np.float64 if field.type in FLOATS else None).astype(_NUMPY[field.type])
    return list(values)


def _micros(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _not_finite(field: Field, column: Column) -> list[int]:
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.array(column, dtype=np.float64).astype(_NUMPY[field.type]))
    if finite.all():
        return []
    return [row for row in np.flatnonzero(~finite).tolist() if column[row] is not None]
