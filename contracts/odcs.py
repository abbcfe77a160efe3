"""Read a data contract from an Open Data Contract Standard document (v3).

Source: Bitol, Open Data Contract Standard v3.1.0. What the standard has no word for stands in `customProperties`:
`catalog`, `namespace`, `subjectKind`, `subjectField`, `eventTimeField`, `sortFields`, `consentField` on the contract,
`fieldId`, `difference`, `unit`, `conversions` (a list of `{unit, factor, offset}`), `aheadMax` (seconds that an event
may lie after the sealing of its batch) on a property. The rest has the standard's own words: `logicalTypeOptions` with
minimum, maximum, maxLength and pattern; `unique`; the quality metrics `invalidValues` and `duplicateValues`;
`slaProperties` with the property `latency` and the field as element, for how old an event may be; `relationships` to
another contract's field. A quality rule of severity `warning` or `info`, and every relationship, is a hint: counted and
reported, and never a reason to refuse. The input is the parsed YAML; reading the file is the caller's.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from contracts.contract import Checks, Contract, Conversion, Field, FieldType, check
from contracts.errors import ContractError

API_VERSIONS: Final = ("v3.0.2", "v3.1.0")
HINT_SEVERITIES: Final = ("warning", "info")
UNIT_SECONDS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


class _Custom(Struct, frozen=True):
    property: str
    value: Any


class _Options(Struct, frozen=True, rename="camel"):
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    pattern: str | None = None


class _Quality(Struct, frozen=True, rename="camel"):
    metric: str
    must_be: float | None = None
    arguments: dict[str, Any] = {}
    severity: str = "error"
    description: str = ""


class _Relationship(Struct, frozen=True):
    to: str
    type: str = "foreignKey"


class _Property(Struct, frozen=True, rename="camel"):
    name: str
    logical_type: str
    physical_type: str
    description: str = ""
    required: bool = False
    unique: bool = False
    classification: str = "internal"
    logical_type_options: _Options = _Options()
    quality: tuple[_Quality, ...] = ()
    relationships: tuple[_Relationship, ...] = ()
    custom_properties: tuple[_Custom, ...] = ()


class _Table(Struct, frozen=True, rename="camel"):
    name: str
    properties: tuple[_Property, ...]
    description: str = ""


class _Description(Struct, frozen=True):
    purpose: str
    usage: str = ""
    limitations: str = ""


class _Sla(Struct, frozen=True):
    property: str
    value: int
    unit: str = ""
    element: str = ""


class _Member(Struct, frozen=True):
    username: str
    role: str = ""


class _Team(Struct, frozen=True):
    name: str
    members: tuple[_Member, ...] = ()


class _Document(Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    id: str
    name: str
    version: str
    status: str
    description: _Description
    schema: tuple[_Table, ...]
    team: _Team
    sla_properties: tuple[_Sla, ...]
    custom_properties: tuple[_Custom, ...]


def contract_of(document: object) -> Contract:
    """Return the contract that a parsed ODCS document states. Raises ContractError."""
    try:
        doc = msgspec.convert(document, type=_Document)
    except msgspec.ValidationError as error:
        raise ContractError(f"contract document: expected ODCS {API_VERSIONS[-1]}: {error}") from error
    if doc.api_version not in API_VERSIONS or doc.kind != "DataContract" or len(doc.schema) != 1:
        raise ContractError(
            f"contract {doc.id}: expected kind DataContract, apiVersion in {API_VERSIONS} and one schema object, "
            f"found {doc.kind} {doc.api_version} with {len(doc.schema)}"
        )
    custom = {entry.property: entry.value for entry in doc.custom_properties}
    ages = _ages(doc)
    contract = Contract(
        id=doc.id,
        version=doc.version,
        title=doc.name,
        purpose=doc.description.purpose,
        owner=doc.team.name,
        catalog=_text(doc.id, custom, "catalog"),
        namespace=_text(doc.id, custom, "namespace"),
        fields=tuple(_field(doc.id, entry, ages.pop(entry.name, None)) for entry in doc.schema[0].properties),
        retention_days=_retention_days(doc),
        subject_kind=custom.get("subjectKind"),
        subject_field=custom.get("subjectField"),
        event_time_field=custom.get("eventTimeField"),
        sort_fields=tuple(custom.get("sortFields", ())),
        consent_field=custom.get("consentField"),
    )
    if ages:
        raise ContractError(f"contract {doc.id}: slaProperties: expected fields as elements, found {sorted(ages)}")
    check(contract)
    return contract


def _field(contract_id: str, entry: _Property, age_max_s: int | None) -> Field:
    custom = {c.property: c.value for c in entry.custom_properties}
    try:
        kind = FieldType(entry.physical_type)
    except ValueError as error:
        known = ", ".join(t.value for t in FieldType)
        raise ContractError(
            f"contract {contract_id}: field {entry.name}: physicalType {entry.physical_type!r} is none of {known}"
        ) from error
    if not isinstance(custom.get("fieldId"), int):
        raise ContractError(f"contract {contract_id}: field {entry.name}: expected a whole number as fieldId")
    return Field(
        id=custom["fieldId"],
        name=entry.name,
        type=kind,
        required=entry.required,
        difference=bool(custom.get("difference", False)),
        unit=custom.get("unit"),
        classification=entry.classification,
        description=entry.description,
        checks=msgspec.structs.replace(
            _checks(contract_id, entry), age_max_s=age_max_s, ahead_max_s=_whole(contract_id, entry, custom, "aheadMax")
        ),
        conversions=_conversions(contract_id, entry.name, custom.get("conversions", [])),
    )


def _conversions(contract_id: str, name: str, stated: object) -> tuple[Conversion, ...]:
    try:
        return msgspec.convert(stated, type=tuple[Conversion, ...], strict=True)
    except msgspec.ValidationError as error:
        raise ContractError(
            f"contract {contract_id}: field {name}: conversions: expected a list of unit, factor and offset: {error}"
        ) from error


def _checks(contract_id: str, entry: _Property) -> Checks:
    options = entry.logical_type_options
    checks = Checks(options.minimum, options.maximum, options.max_length, None, options.pattern, entry.unique)
    for rule in entry.quality:
        checks = _with_rule(f"contract {contract_id}: field {entry.name}", checks, rule)
    for related in entry.relationships:
        checks = msgspec.structs.replace(checks, reference=related.to)
    return checks


def _with_rule(label: str, checks: Checks, rule: _Quality) -> Checks:
    """Return the checks with one quality rule more; what we would not follow is refused, never passed over."""
    hint = rule.severity in HINT_SEVERITIES
    match rule:
        case _Quality(metric="invalidValues", must_be=0, arguments={"validValues": [*values]}):
            known = tuple(map(str, values))
            return msgspec.structs.replace(checks, **{"known_values" if hint else "valid_values": known})
        case _Quality(metric="invalidValues", must_be=0, arguments={"pattern": str(pattern)}) if not hint:
            return msgspec.structs.replace(checks, pattern=pattern)
        case _Quality(metric="duplicateValues", must_be=0) if not hint:
            return msgspec.structs.replace(checks, unique=True)
    raise ContractError(
        f"{label}: expected quality metric invalidValues with validValues or a pattern, or duplicateValues, mustBe 0, "
        f"found {rule.metric} mustBe {rule.must_be} with {sorted(rule.arguments)}, severity {rule.severity}"
    )


def _ages(doc: _Document) -> dict[str, int]:
    """Return how old, in seconds, an event may be by which field."""
    found: dict[str, int] = {}
    for sla in doc.sla_properties:
        if sla.property == "latency":
            if sla.unit not in UNIT_SECONDS:
                raise ContractError(f"contract {doc.id}: latency: expected a unit of {[*UNIT_SECONDS]}: {sla.unit!r}")
            found[sla.element.rpartition(".")[2]] = sla.value * UNIT_SECONDS[sla.unit]
    return found


def _whole(contract_id: str, entry: _Property, custom: dict[str, Any], name: str) -> int | None:
    value = custom.get(name)
    if value is not None and not isinstance(value, int):
        raise ContractError(f"contract {contract_id}: field {entry.name}: expected whole seconds as {name}: {value!r}")
    return value


def _text(contract_id: str, custom: dict[str, Any], name: str) -> str:
    value = custom.get(name)
    if not isinstance(value, str) or not value:
        raise ContractError(f"contract {contract_id}: customProperties must name {name!r}")
    return value


def _retention_days(doc: _Document) -> int:
    for sla in doc.sla_properties:
        if sla.property == "retention" and sla.unit == "d":
            return sla.value
    raise ContractError(f"contract {doc.id}: expected slaProperties with property retention, unit d")
