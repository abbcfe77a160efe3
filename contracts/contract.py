"""A data contract as values: what a kind of event looks like, means and may be used for.

The document is Open Data Contract Standard YAML (`contracts.odcs`); from the values here follow the Arrow schema, the
Iceberg schema and the row checks, each in the package that has the library for it.
"""

import hashlib
import math
import re
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from contracts.errors import ContractError
from contracts.malformed import MALFORMED

SEQ_COLUMN: Final = "seq"
# Fields. Each adds about 400 bytes to every data file and 0.7 ms to every commit: 2,000 of them make it 1.5 s,
# and beyond that no row would be there within the second that is promised.
FIELDS_MAX: Final = 2_000
PATTERN_CHARS_MAX: Final = 512  # characters; longer ones are nobody's to read, and cost memory in every reader
PERSON_CHARS_MAX: Final = 256  # characters of what names a person; an identifier, not a description
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")
_REFERENCE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\.[a-z][a-z0-9_]{0,62}")
# What Python's expressions have and RE2's have not: looking around, going back.
_NOT_RE2: Final = re.compile(r"\(\?(?!:|P<\w+>|[ims]+[:)])|\\[1-9Z]")


class FieldType(Enum):
    """Physical type of a field; the value is the word used in contract documents."""

    STRING = "string"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    TIMESTAMPTZ = "timestamptz"  # microseconds since 1970-01-01 UTC, a 64-bit integer on the wire


INTEGERS: Final = frozenset({FieldType.INT, FieldType.LONG, FieldType.TIMESTAMPTZ})
FLOATS: Final = frozenset({FieldType.FLOAT, FieldType.DOUBLE})


class Checks(Struct, frozen=True, omit_defaults=True):
    """Row checks of one field. Floats must be finite whatever is stated here.

    `pattern` (RE2) must be found somewhere in the text. `unique`: no value twice in one micro-batch. `age_max_s` and
    `ahead_max_s`: how long before and after the sealing of its batch an event may have happened; by that time and not
    by ours, so that a row is judged alike whenever it is read. `known_values` and `reference` (`contract.field`) are
    hints: what is not among them is counted and reported, and never refused.
    """

    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    valid_values: tuple[str, ...] | None = None
    pattern: str | None = None
    unique: bool = False
    age_max_s: int | None = None
    ahead_max_s: int | None = None
    known_values: tuple[str, ...] | None = None
    reference: str | None = None


class Conversion(Struct, frozen=True):
    """How a value in an older unit becomes one in the field's own: `value * factor + offset`."""

    unit: str
    factor: float
    offset: float = 0.0


class Field(Struct, frozen=True, omit_defaults=True):
    """One field. `id` never changes its meaning; `difference` columns travel as differences to the row before.

    `conversions`: one for every unit that an older version stated.
    """

    id: int
    name: str
    type: FieldType
    required: bool = False
    difference: bool = False
    unit: str | None = None
    classification: str = "internal"
    description: str = ""
    checks: Checks = Checks()
    conversions: tuple[Conversion, ...] = ()


class Contract(Struct, frozen=True):
    """A published version of a contract.

    `catalog` and `namespace` say where its table lies, `subject_field` which field names what the event is about
    (None: the origin itself), `event_time_field` when it happened. `consent_field` names the person without whose
    consent an event is neither sent nor written down; None: it is of nobody.
    """

    id: str
    version: str
    title: str
    purpose: str
    owner: str
    catalog: str
    namespace: str
    fields: tuple[Field, ...]
    retention_days: int
    subject_kind: str | None = None
    subject_field: str | None = None
    event_time_field: str | None = None
    sort_fields: tuple[str, ...] = ()
    consent_field: str | None = None

    @property
    def table(self) -> str:
        """Name of the table within its catalog: `namespace.id`."""
        return f"{self.namespace}.{self.id}"

    @property
    def number(self) -> tuple[int, int, int]:
        """The version as (major, minor, patch), which is how versions are ordered. Raises ContractError."""
        return version_number(self.version)

    def field(self, name: str) -> Field:
        """Return a field by name. Raises ContractError."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ContractError(f"contract {self.id} {self.version}: expected a field {name!r}, found none of that name")


def version_number(version: str) -> tuple[int, int, int]:
    """Return a version as (major, minor, patch). Raises ContractError."""
    parts = _VERSION.fullmatch(version)
    if parts is None:
        raise ContractError(f"contract version {version!r}: expected MAJOR.MINOR.PATCH, three numbers")
    major, minor, patch = parts.groups()
    return int(major), int(minor), int(patch)


def fingerprint(contract: Contract) -> int:
    """Return the 64 bits that name a contract's wire schema.

    They are the first 8 bytes, big-endian, of the SHA-256 of the canonical JSON of id and fields as (id, name, type,
    required, difference), and the unit where a conversion to it is stated: what changes the payload's bytes or what
    they measure changes the fingerprint, a new description does not.
    """
    canonical = [
        contract.id,
        [
            [f.id, f.name, f.type.value, f.required, f.difference, *([f.unit] if f.conversions else [])]
            for f in contract.fields
        ],
    ]
    return int.from_bytes(hashlib.sha256(msgspec.json.encode(canonical)).digest()[:8], "big")


def encode(contract: Contract) -> bytes:
    """Return the JSON form that travels on `fieldlake.contracts` and in device bundles."""
    return msgspec.json.encode(contract)


def decode(data: bytes) -> Contract:
    """Parse the JSON form and check it. Raises ContractError."""
    try:
        contract = msgspec.json.decode(data, type=Contract)
    except MALFORMED as error:
        raise ContractError(f"contract: expected its JSON form, found {data[:80]!r}: {error}") from error
    check(contract)
    return contract


def check(contract: Contract) -> None:
    """Raise ContractError when the contract breaks a rule that the rest of the system relies on."""
    label = f"contract {contract.id} {contract.version}"
    version_number(contract.version)
    if not 0 < len(contract.fields) <= FIELDS_MAX:
        raise ContractError(f"{label}: expected 1 to {FIELDS_MAX} fields, found {len(contract.fields)}")
    for kind, values in (("name", [f.name for f in contract.fields]), ("id", [f.id for f in contract.fields])):
        if len(set(values)) != len(values):
            raise ContractError(f"{label}: field {kind}s must differ, found {values}")
    for field in contract.fields:
        if not _NAME.fullmatch(field.name) or field.name in SYSTEM_COLUMNS:
            raise ContractError(
                f"{label}: field name {field.name!r}: expected lower-case letters, digits and '_', not a system column"
            )
        if field.difference and (field.type not in INTEGERS or not field.required):
            raise ContractError(f"{label}: field {field.name!r} travels as differences: it must be a required integer")
        _check_conversions(label, field)
        _check_checks(f"{label}: field {field.name!r}", field)
    for name in (contract.subject_field, contract.event_time_field, *contract.sort_fields):
        if name is not None:
            contract.field(name)
    if contract.consent_field is not None:
        _check_consent(label, contract.field(contract.consent_field))


def _check_conversions(label: str, field: Field) -> None:
    units = [conversion.unit for conversion in field.conversions]
    if not units:
        return
    label = f"{label}: field {field.name!r}"
    if field.unit is None or field.unit in units or len(set(units)) != len(units):
        raise ContractError(f"{label}: expected a unit of its own and conversions from other units, found {units}")
    for conversion in field.conversions:
        if not (math.isfinite(conversion.factor) and math.isfinite(conversion.offset)) or conversion.factor == 0:
            raise ContractError(f"{label}: from {conversion.unit}: expected a factor other than 0, all numbers finite")


def _check_checks(label: str, field: Field) -> None:
    checks = field.checks
    if (checks.pattern, checks.known_values) != (None, None) and field.type is not FieldType.STRING:
        raise ContractError(f"{label}: a pattern or known values are for text, found {field.type.value}")
    if (checks.age_max_s, checks.ahead_max_s) != (None, None) and field.type is not FieldType.TIMESTAMPTZ:
        raise ContractError(f"{label}: age and ahead are for timestamptz, found {field.type.value}")
    if min(checks.age_max_s or 0, checks.ahead_max_s or 0) < 0:
        raise ContractError(f"{label}: expected age and ahead of 0 s or more")
    if checks.unique and field.type in FLOATS:
        raise ContractError(f"{label}: floating-point values cannot be unique: two that look alike may differ")
    if checks.pattern is not None:
        _check_pattern(label, checks.pattern)
    if checks.reference is not None and not _REFERENCE.fullmatch(checks.reference):
        raise ContractError(f"{label}: expected a reference contract.field, found {checks.reference!r}")


def _check_pattern(label: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ContractError(f"{label}: pattern {pattern!r}: expected a regular expression: {error}") from error
    if len(pattern) > PATTERN_CHARS_MAX or _NOT_RE2.search(pattern):
        raise ContractError(
            f"{label}: pattern {pattern!r}: expected RE2 of at most {PATTERN_CHARS_MAX} characters: nothing that looks "
            "around or goes back"
        )


def _check_consent(label: str, person: Field) -> None:
    length, label = person.checks.max_length, f"{label}: field {person.name!r} names the person whose consent is needed"
    if person.type is not FieldType.STRING or not person.required or length is None or length > PERSON_CHARS_MAX:
        raise ContractError(f"{label}: expected a required string with a maxLength of at most {PERSON_CHARS_MAX}")
    if person.classification != "personal":
        raise ContractError(f"{label}: expected classification personal, found {person.classification!r}")


# Columns that the lake adds in front of every contract's own, with their types.
SYSTEM_COLUMNS: Final[dict[str, FieldType]] = {
    "origin": FieldType.STRING,
    "epoch": FieldType.LONG,
    SEQ_COLUMN: FieldType.LONG,
    "contract_version": FieldType.STRING,
    "sealed_at": FieldType.TIMESTAMPTZ,
}
