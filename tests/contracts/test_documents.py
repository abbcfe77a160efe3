"""The contract documents of the repository: all load, and their wire schemas are pinned."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import contracts
from contracts import contract, odcs, wire
from contracts.contract import SEQ_COLUMN, SYSTEM_COLUMNS, Contract, FieldType
from contracts.errors import ContractError

FOLDER = Path(str(contracts.__file__)).with_name("documents")
DOCUMENTS = sorted(FOLDER.glob("*.odcs.yaml"))

# Batches on the log and in spools name these: a changed value makes them unreadable.
FINGERPRINTS = {
    "agent_metrics": 0x806CCABF622F0A35,
    "clicks": 0x7D7D18B34774FB7A,
    "consents": 0xC72FFC2410EB2B77,
    "data_quality": 0xD4D71199FF6A74A4,
    "decisions": 0xDAA604FA2307C143,
    "ledger": 0x57CBDF3D76DB58F0,
    "pulls": 0xFDB7B6BF254FAE62,
    "purchases": 0x88259F5C3E4A9AFD,
    "quarantine": 0x652976101DB07F9B,
    "service_history": 0xBA351AE5C24F3322,
    "telemetry": 0x4E65068EC3D35924,
    "telemetry_windows": 0x731595F36F42E734,
    "visits": 0x40EE504FCC9031C3,
}


def load(path: Path) -> Contract:
    return odcs.contract_of(yaml.safe_load(path.read_text()))


def test_every_document_has_a_pinned_wire_schema() -> None:
    assert {found.id: contract.fingerprint(found) for found in map(load, DOCUMENTS)} == FINGERPRINTS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_says_all_that_the_lake_needs(path: Path) -> None:
    found = load(path)
    assert path.name == f"{found.id}.odcs.yaml"
    assert found.catalog in {"lake_a", "lake_b"}
    assert found.purpose
    assert found.owner
    assert found.retention_days > 0
    assert all(field.description for field in found.fields)
    assert (found.subject_field is None) <= (found.subject_kind is None)
    if found.event_time_field is not None:
        assert found.field(found.event_time_field).type is FieldType.TIMESTAMPTZ


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_contract_survives_its_json_form(path: Path) -> None:
    found = load(path)
    assert contract.decode(contract.encode(found)) == found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_wire_columns_are_seq_and_then_the_fields(path: Path) -> None:
    found = load(path)
    first, *rest = wire.columns(found)
    assert (first.name, first.type, first.required, first.difference) == (SEQ_COLUMN, FieldType.LONG, True, True)
    assert [column.name for column in rest] == [field.name for field in found.fields]
    assert all(column.type is not FieldType.TIMESTAMPTZ for column in rest)


def test_a_description_does_not_change_the_fingerprint_and_a_type_does() -> None:
    document = yaml.safe_load((FOLDER / "clicks.odcs.yaml").read_text())
    properties: list[dict[str, Any]] = document["schema"][0]["properties"]
    properties[0]["description"] = "Other words."
    assert contract.fingerprint(odcs.contract_of(document)) == FINGERPRINTS["clicks"]
    properties[0]["physicalType"] = "long"
    assert contract.fingerprint(odcs.contract_of(document)) != FINGERPRINTS["clicks"]


def test_checks_are_read_from_the_words_of_the_standard_and_leave_the_wire_as_it_is() -> None:
    document = yaml.safe_load((FOLDER / "clicks.odcs.yaml").read_text())
    document["slaProperties"] += [{"property": "latency", "value": 7, "unit": "d", "element": "clicks.occurred_at"}]
    properties = {entry["name"]: entry for entry in document["schema"][0]["properties"]}
    properties["user_id"] |= {"unique": True, "relationships": [{"type": "foreignKey", "to": "visits.contact_id"}]}
    properties["session_id"]["logicalTypeOptions"] = {"maxLength": 64, "pattern": "^visit-"}
    properties["session_id"]["quality"] = [{"metric": "duplicateValues", "mustBe": 0}]
    properties["platform"]["quality"] = [
        {"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["web", "微信"]}, "severity": "warning"}
    ]
    properties["occurred_at"]["customProperties"] += [{"property": "aheadMax", "value": 60}]
    found = odcs.contract_of(document)
    assert contract.fingerprint(found) == FINGERPRINTS["clicks"]
    assert contract.decode(contract.encode(found)) == found
    user, session = found.field("user_id").checks, found.field("session_id").checks
    assert (user.unique, user.reference) == (True, "visits.contact_id")
    assert (session.pattern, session.unique, session.max_length) == ("^visit-", True, 64)
    assert found.field("platform").checks.known_values == ("web", "微信")
    assert found.field("platform").checks.valid_values is None
    moment = found.field("occurred_at").checks
    assert (moment.age_max_s, moment.ahead_max_s) == (7 * 86_400, 60)


def _latency_of_no_field(document: dict[str, Any]) -> None:
    document["slaProperties"] += [{"property": "latency", "value": 7, "unit": "d", "element": "nobody"}]


def _hint_that_nobody_counts(document: dict[str, Any]) -> None:
    rule = {"metric": "duplicateValues", "mustBe": 0, "severity": "info"}
    document["schema"][0]["properties"][0]["quality"] = [rule]


def _pattern_that_looks_around(document: dict[str, Any]) -> None:
    document["schema"][0]["properties"][0]["logicalTypeOptions"] = {"pattern": "(?=a)"}


def _without_owner(document: dict[str, Any]) -> None:
    del document["team"]


def _unknown_type(document: dict[str, Any]) -> None:
    document["schema"][0]["properties"][0]["physicalType"] = "varchar"


def _two_tables(document: dict[str, Any]) -> None:
    document["schema"] *= 2


def _no_retention(document: dict[str, Any]) -> None:
    document["slaProperties"] = []


def _same_name_twice(document: dict[str, Any]) -> None:
    document["schema"][0]["properties"] *= 2


def _system_column(document: dict[str, Any]) -> None:
    document["schema"][0]["properties"][0]["name"] = next(iter(SYSTEM_COLUMNS))


def _no_field_id(document: dict[str, Any]) -> None:
    document["schema"][0]["properties"][0]["customProperties"] = []


def _unknown_subject(document: dict[str, Any]) -> None:
    document["customProperties"] += [{"property": "subjectField", "value": "nobody"}]


def _no_catalog(document: dict[str, Any]) -> None:
    document["customProperties"] = [e for e in document["customProperties"] if e["property"] != "catalog"]


def _other_standard(document: dict[str, Any]) -> None:
    document["apiVersion"] = "v2.2.2"


@pytest.mark.parametrize(
    "damage",
    [
        _without_owner, _unknown_type, _two_tables, _no_retention, _same_name_twice, _system_column, _no_field_id,
        _unknown_subject, _no_catalog, _other_standard, _latency_of_no_field, _hint_that_nobody_counts,
        _pattern_that_looks_around,
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_followed_is_refused(damage: Any) -> None:
    document = yaml.safe_load((FOLDER / "clicks.odcs.yaml").read_text())
    damage(document)
    with pytest.raises(ContractError, match="contract"):
        odcs.contract_of(document)
