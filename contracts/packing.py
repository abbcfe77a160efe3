"""The packed payload (codec 2): rows as small integers beside the text they name, and the plan that makes them small.

A payload is one zstd frame without magic number, content size and dictionary id: the batch's header has all three. What
it holds once decompressed, with LEB128 for every number:

    modes | size of the blob | blob | constants | text lengths | rows | columns apart

(nothing at all when the batch has no rows).

A *stream* is one number per row. In the order of the plan, every column is a stream; a nullable column that is not text
has a stream of validity (1 = value, 0 = null) right before it. `modes` is one byte per stream: bit 4 set = constant,
bits 0-3 its exponent, 15 = raw.

- **Integers** lie as value / 10**exponent, without remainder; **truth values** as 0 or 1.
- **Floats** lie as the integer q with `q / 10**exponent` (in 64 bits, then rounded to the column's) being the value,
  bit for bit; |q| < 2**53. Where no exponent
  from 0 to 9 does, the stream is raw: its values (null as 0) lie in the blob, little-endian, and not among the rows.
- **Text** lies as a code: 0 = a new text, the next in the blob; 1 = null; 2 + i = the i-th known text, where the
  plan's texts come first and the batch's follow in the order in which they were new. `text lengths` are the bytes of
  UTF-8 of each new text, per column in the order of the plan; the blob holds all texts in that order, then all raw
  floats.

From a number (nulls and raw floats count as 0) the plan subtracts its terms, factor times the number of another column
in the same row, and its base, and then, where it says so, what the row before left; for the first row that is 0. All
that modulo 2**64. What is left lies zigzag-coded (0, -1, 1, -2 are 0, 1, 2, 3), except codes and validity, which lie as
they are. A stream whose rows after the first are all alike is constant: two numbers, the first row's and the others'
(of a single row the same twice), among the constants. The rest lies row by row: zstd finds rows, or parts of them, that
came before. Streams of columns that the plan sets apart come behind the rows, one whole stream after the other: numbers
that never repeat would part what repeats.

The plan of a batch without a dictionary follows from the contract: columns in order, differences as marked. A trained
dictionary carries its plan as the last bytes of its content, which to zstd are bytes like any other:

    JSON of `Plan` | size of the JSON, 4 bytes little-endian | FLPL
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from contracts import wire
from contracts.contract import Contract, FieldType, fingerprint
from contracts.errors import ContractError
from contracts.malformed import MALFORMED
from contracts.microbatch import RAW_BYTES_MAX
from contracts.wire import WireColumn

PLAN_MAGIC: Final = b"FLPL"
# Put before a frame, they let zstd's own functions read its header: an attacker's may claim a content size after all.
ZSTD_MAGIC: Final = bytes.fromhex("28b52ffd")
FRAME_HEADER_BYTES_MAX: Final = 14  # bytes without the magic number (RFC 8878, section 3.1.1.1)
PLAN_BYTES_MAX: Final = 131_072  # bytes; 500 columns with their terms, and some thousand known texts
TERMS_MAX: Final = 4  # terms per column; sums that sensors of one machine obey have two or three
FACTOR_MAX: Final = (
    10**9
)  # a term's factor; microseconds per sequence number of a source that speaks every quarter hour
BASE_MAX: Final = 2**53  # where most of a column's numbers lie around; zigzag then makes them small
TEXTS_MAX: Final = 250  # known texts per column; with the two codes before them nearly all fit one or two bytes
TEXT_CHARS_MAX: Final = 64  # characters of a known text; a longer one is free text and will not come again

CONSTANT: Final = 0x10
EXPONENT: Final = 0x0F
RAW: Final = 15
EXPONENT_MAX: Final = 9
NEW_TEXT: Final = 0
NULL_TEXT: Final = 1
KNOWN_TEXT: Final = 2
EXACT_MAX: Final = 2**53  # beyond, not every integer is a float
INTEGER_EXPONENTS: Final = (6, 3)  # tried in this order: microseconds of clocks that tick in s or ms
_DECIMAL: Final = frozenset(range(EXPONENT_MAX + 1)) | {RAW}
EXPONENTS: Final = {
    FieldType.STRING: frozenset({0}),
    FieldType.INT: frozenset({0}),
    FieldType.LONG: frozenset({0, *INTEGER_EXPONENTS}),
    FieldType.FLOAT: _DECIMAL,
    FieldType.DOUBLE: _DECIMAL,
    FieldType.BOOLEAN: frozenset({0}),
}

WIDTH_BYTES: Final = {
    FieldType.STRING: 4,
    FieldType.INT: 4,
    FieldType.LONG: 8,
    FieldType.FLOAT: 4,
    FieldType.DOUBLE: 8,
    FieldType.BOOLEAN: 1,
}
_TRAILER_BYTES: Final = 8


class Term(Struct, frozen=True, array_like=True):
    """`factor` times the number of `column`, an index into the payload's columns."""

    column: Annotated[int, Meta(ge=0)]
    factor: Annotated[int, Meta(ge=-FACTOR_MAX, le=FACTOR_MAX)]


class Planned(Struct, frozen=True, array_like=True):
    """How one column lies: `column` indexes the payload's columns, `texts` are known to both sides beforehand."""

    column: Annotated[int, Meta(ge=0)]
    difference: bool = False
    terms: Annotated[tuple[Term, ...], Meta(max_length=TERMS_MAX)] = ()
    base: Annotated[int, Meta(ge=-BASE_MAX, le=BASE_MAX)] = 0
    apart: bool = False
    texts: Annotated[tuple[Annotated[str, Meta(max_length=TEXT_CHARS_MAX)], ...], Meta(max_length=TEXTS_MAX)] = ()


class Plan(Struct, frozen=True):
    """The columns of one contract version in the order in which they lie, learnt from the rows of one tenant."""

    fingerprint: int
    columns: tuple[Planned, ...]
    tenant: str = "default"


class Stream(Struct, frozen=True):
    """One number per row. `validity`: it says which rows of its column have a value."""

    column: WireColumn
    planned: Planned
    validity: bool = False


def default_plan(contract: Contract) -> Plan:
    """Return the plan that follows from the contract alone."""
    marked = tuple(Planned(at, column.difference) for at, column in enumerate(wire.columns(contract)))
    return Plan(fingerprint(contract), marked)


def plan_of(contract: Contract, dictionary: bytes = b"") -> Plan:
    """Return the plan that a dictionary carries for a contract, else the contract's own.

    Raises ContractError when the dictionary's plan is of another contract version or cannot be followed.
    """
    plan = embedded_plan(dictionary)
    if plan is None:
        return default_plan(contract)
    check_plan(plan, contract)
    return plan


def embedded_plan(dictionary: bytes) -> Plan | None:
    """Return the plan that a dictionary carries, None when there is none. Raises ContractError for a broken one."""
    if dictionary[-len(PLAN_MAGIC) :] != PLAN_MAGIC:
        return None
    size = int.from_bytes(dictionary[-_TRAILER_BYTES : -len(PLAN_MAGIC)], "little")
    if size > min(PLAN_BYTES_MAX, len(dictionary) - _TRAILER_BYTES):
        raise ContractError(f"dictionary: its plan claims {size} bytes: train it again")
    try:
        return msgspec.json.decode(dictionary[-_TRAILER_BYTES - size : -_TRAILER_BYTES], type=Plan)
    except MALFORMED as error:
        raise ContractError(f"dictionary: its plan cannot be read: {error}: train it again") from error


def with_plan(dictionary: bytes, plan: Plan) -> bytes:
    """Return a dictionary that carries a plan behind its content."""
    text = msgspec.json.encode(plan)
    if len(text) > PLAN_BYTES_MAX:
        raise ContractError(f"plan of {len(text)} bytes, at most {PLAN_BYTES_MAX}: give it fewer known texts")
    return dictionary + text + len(text).to_bytes(4, "little") + PLAN_MAGIC


def check_plan(plan: Plan, contract: Contract) -> None:
    """Raise ContractError unless the plan names every column of the contract once and terms that come before them."""
    columns = wire.columns(contract)
    label = f"plan for contract {contract.id} {contract.version}"
    if plan.fingerprint != fingerprint(contract):
        raise ContractError(f"{label}: it was made for fingerprint {plan.fingerprint:#018x}: train it again")
    if sorted(planned.column for planned in plan.columns) != list(range(len(columns))):
        raise ContractError(f"{label}: expected each of {len(columns)} columns once: train it again")
    numbers: set[int] = set()
    for planned in plan.columns:
        column = columns[planned.column]
        text = column.type is FieldType.STRING
        if any(term.column not in numbers for term in planned.terms):
            raise ContractError(f"{label}: {column.name}: a term must be a number that lies before it: train it again")
        if (planned.terms or planned.difference or planned.base) if text else planned.texts:
            raise ContractError(f"{label}: {column.name}: text has no terms, numbers no texts: train it again")
        if len(set(planned.texts)) != len(planned.texts):
            raise ContractError(f"{label}: {column.name}: its texts must differ: train it again")
        if not text:
            numbers.add(planned.column)


def streams(plan: Plan, contract: Contract) -> tuple[Stream, ...]:
    """Return the streams of a plan in the order in which they lie."""
    columns = wire.columns(contract)
    found: list[Stream] = []
    for planned in plan.columns:
        column = columns[planned.column]
        if column.type is not FieldType.STRING and not column.required:
            found.append(Stream(column, planned, validity=True))
        found.append(Stream(column, planned))
    return tuple(found)


def rows_max(contract: Contract) -> int:
    """Return how many rows may be packed: constant columns would let a few bytes claim any number.

    Unpacked, the columns without their texts then take at most what another payload may inflate to; the texts of all
    rows together may take as much again.
    """
    return RAW_BYTES_MAX // sum(WIDTH_BYTES[column.type] for column in wire.columns(contract))
