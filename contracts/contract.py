"""A data contract as values: what a kind of event looks like, means and may be used for.

The document is Open Data Contract Standard YAML (`contracts.odcs`); from the values here follow the Arrow schema, the
Iceberg schema and the row checks, each in the package that has the library for it.
"""

import hashlib
import re
from enum import Enum
from typing import Final

import msgspec
from msgspec import Struct

from contracts.errors import ContractError
from contracts.malformed import MALFORMED

SEQ_COLUMN: Final = "seq"
FIELDS_MAX: Final = 500  # fields; a wider table is a modelling error and makes every commit's metadata large
PERSON_CHARS_MAX: Final = 256  # characters of what names a person; an identifier, not a description
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


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
    """Row checks of one field. Floats must be finite whatever is stated here."""

    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    valid_values: tuple[str, ...] | None = None


class Field(Struct, frozen=True, omit_defaults=True):
    """One field. `id` never changes its meaning; `difference` columns travel as differences to the row before."""

    id: int
    name: str
    type: FieldType
    required: bool = False
    difference: bool = False
    unit: str | None = None
    classification: str = "internal"
    description: str = ""
    checks: Checks = Checks()


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

    def field(self, name: str) -> Field:
        """Return a field by name. Raises ContractError."""
        for field in self.fields:
            if field.name == name:
                return field
        raise ContractError(f"contract {self.id} {self.version}: expected a field {name!r}, found none of that name")


def fingerprint(contract: Contract) -> int:
    """Return the 64 bits that name a contract's wire schema.

    They are the first 8 bytes, big-endian, of the SHA-256 of the canonical JSON of id and fields as (id, name, type,
    required, difference): what changes the payload's bytes changes the fingerprint, a new description does not.
    """
    canonical = [contract.id, [[f.id, f.name, f.type.value, f.required, f.difference] for f in contract.fields]]
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
    for name in (contract.subject_field, contract.event_time_field, *contract.sort_fields):
        if name is not None:
            contract.field(name)
    if contract.consent_field is not None:
        _check_consent(label, contract.field(contract.consent_field))


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
