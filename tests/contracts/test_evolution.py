"""What changes between two versions of a contract, and which of it may be published."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.consequences import on_devices, outlook, summary
from contracts.contract import Checks, Contract, Conversion, Field, FieldType, check, decode, encode, fingerprint
from contracts.errors import ContractError
from contracts.evolution import Change, Kind, Need, diff, means_otherwise, problems
from contracts.odcs import contract_of
from contracts.rules import AllOf, Comparison, Condition, Rule
from infra.bundles.documents import documents_dir, read_contracts

LONG, INT, TEXT, DOUBLE = FieldType.LONG, FieldType.INT, FieldType.STRING, FieldType.DOUBLE
FIRST = Contract(
    "press", "1.2.3", "Press", "Tests.", "tests", "lake_a", "field",
    (
        Field(1, "asset", TEXT, True, classification="personal", checks=Checks(max_length=64)),
        Field(2, "pressure", INT), Field(3, "took", DOUBLE, unit="s"), Field(4, "at", FieldType.TIMESTAMPTZ, True),
    ), 30, "asset", "asset", "at", ("asset", "at"),
)  # fmt: skip
TO_MS = (Conversion("s", 1_000.0),)


def version(number: str, changes: Mapping[int, dict[str, Any] | None], *added: Field, **own: Any) -> Contract:
    """The first version with some fields changed (None: dropped)."""
    fields = [replace(f, **(changes.get(f.id) or {})) for f in FIRST.fields if changes.get(f.id, {}) is not None]
    return replace(FIRST, version=number, fields=(*fields, *added), **own)


def rule(*names: str, contract: str = "press") -> Rule:
    where = tuple(Comparison(name, "gt", 5) for name in names)
    return Rule("hot", 1, "Hot", "tests", "asset", AllOf((Condition(contract, where),), 60), "i", "a")


FREE, ACCEPTED, REFUSED = Need.FREE, Need.ACCEPTED, Need.REFUSED
CASES = [
    (version("1.3.0", {}, Field(9, "note", TEXT)), [(Kind.ADDED, "note", "", "string", FREE)]),
    (version("1.3.0", {2: None}), [(Kind.DROPPED, "pressure", "int", "", ACCEPTED)]),
    (version("1.3.0", {3: {"name": "duration"}}), [(Kind.RENAMED, "duration", "took", "duration", FREE)]),
    (version("1.3.0", {2: {"type": LONG}}), [(Kind.WIDENED, "pressure", "int", "long", FREE)]),
    (version("2.0.0", {2: {"type": TEXT}}), [(Kind.RETYPED, "pressure", "int", "string", ACCEPTED)]),
    (version("2.0.0", {3: {"unit": "ms", "conversions": TO_MS}}), [(Kind.CONVERTED, "took", "s", "ms", ACCEPTED)]),
    (version("2.0.0", {3: {"unit": "ms"}}), [(Kind.REMEASURED, "took", "s", "ms", REFUSED)]),
    (version("1.3.0", {2: {"unit": "bar"}}), [(Kind.UNIT, "pressure", "", "bar", FREE)]),
    (version("1.3.0", {1: {"required": False}}), [(Kind.LOOSENED, "asset", "required", "optional", FREE)]),
    (version("1.3.0", {2: {"required": True}}), [(Kind.TIGHTENED, "pressure", "optional", "required", ACCEPTED)]),
    (version("1.3.0", {4: {"difference": True}}), [(Kind.DIFFERENCE, "at", "false", "true", FREE)]),
    (
        version("1.3.0", {2: {"checks": Checks(minimum=0, maximum=9)}}),
        [(Kind.CHECKS, "pressure", "none", "minimum 0, maximum 9", FREE)],
    ),
    (
        version("1.3.0", {1: {"classification": "internal"}}),
        [(Kind.CLASSIFICATION, "asset", "personal", "internal", ACCEPTED)],
    ),
    (
        version("1.3.0", {2: {"classification": "personal"}}),
        [(Kind.CLASSIFICATION, "pressure", "internal", "personal", FREE)],
    ),
    (version("1.2.4", {1: {"description": "机器"}}), [(Kind.DESCRIPTION, "asset", "", "机器", FREE)]),
    (version("1.3.0", {}, retention_days=31), [(Kind.RETENTION, "", "30", "31", FREE)]),
    (version("1.3.0", {}, retention_days=9), [(Kind.RETENTION, "", "30", "9", ACCEPTED)]),
    (version("1.3.0", {}, consent_field="asset"), [(Kind.CONSENT, "", "", "asset", ACCEPTED)]),
    (version("1.3.0", {}, subject_kind="press"), [(Kind.SUBJECT, "", "asset asset", "press asset", ACCEPTED)]),
    (version("1.3.0", {}, event_time_field=None), [(Kind.EVENT_TIME, "", "at", "", FREE)]),
    (version("1.3.0", {}, sort_fields=("at",)), [(Kind.SORT, "", "asset, at", "at", FREE)]),
    (version("1.3.0", {}, namespace="plant"), [(Kind.PLACE, "", "lake_a.field", "lake_a.plant", REFUSED)]),
    (version("1.3.0", {}, title="压机"), [(Kind.DESCRIPTION, "", "Press; Tests.; tests", "压机; Tests.; tests", FREE)]),
    (version("1.3.0", {1: {"name": "machine"}}, subject_field="machine", sort_fields=("machine", "at")),
     [(Kind.RENAMED, "machine", "asset", "machine", FREE)]),
    (replace(FIRST, version="1.3.0", fields=FIRST.fields[::-1]),
     [(Kind.MOVED, "", "asset, pressure, took, at", "at, took, pressure, asset", FREE)]),
    (replace(FIRST, version="1.2.4"), []),
]  # fmt: skip


@pytest.mark.parametrize(("newer", "wanted"), CASES, ids=lambda case: None)
def test_each_change_is_named_once_and_has_its_consequences(
    newer: Contract, wanted: list[tuple[Kind, str, str, str, Need]]
) -> None:
    check(newer)
    assert diff(FIRST, newer) == tuple(Change(*case) for case in wanted)
    for entry in outlook(FIRST, newer):
        assert entry.says
        assert "{" not in entry.says + "".join(effect.says for effect in entry.effects)
    refused = [kind for kind, *_, need in wanted if need is REFUSED]
    accepted = [kind for kind, *_, need in wanted if need is ACCEPTED]
    found = problems(newer, [FIRST])
    assert [problem.split()[0].rstrip(":") for problem in found] == [kind.value for kind in (*refused, *accepted)]
    assert all(f"--accept {kind.value}" in problem for kind, problem in zip(accepted, found, strict=False))
    assert bool(problems(newer, [FIRST], accepted=accepted)) == bool(refused)


def test_a_rule_that_reads_a_field_is_told_of_and_must_be_accepted() -> None:
    newer = version("1.3.0", {3: {"name": "duration"}})
    (change,) = diff(FIRST, newer, [rule("took")])
    assert (change.need, change.rules) == (ACCEPTED, ("hot",))
    (problem,) = problems(newer, [FIRST], [rule("took")])
    assert problem.startswith("renamed duration: it takes something away, rules in force feel it: hot: accept")
    (entry,) = outlook(FIRST, newer, (rule("took"),))
    assert [effect.on for effect in entry.effects] == ["table", "checks", "jobs", "jobs"]
    assert diff(FIRST, newer, [rule("pressure"), rule("took", contract="other")])[0].need is FREE
    assert diff(FIRST, version("1.3.0", {}, event_time_field=None), [rule()])[0].need is ACCEPTED


def test_versions_go_up_and_what_is_incompatible_takes_a_major_one() -> None:
    beside = [FIRST, version("1.10.0", {2: {"type": LONG}})]
    assert problems(version("1.9.0", {}, Field(9, "note", TEXT)), beside)[0].startswith("version 1.9.0: 1.10.0 is")
    retyped = {2: {"type": TEXT}}
    assert "give it the version 2.0.0" in problems(version("1.3.0", retyped), [FIRST], (), [Kind.RETYPED])[0]
    assert problems(version("2.0.0", retyped), [FIRST], (), [Kind.RETYPED]) == ()
    assert problems(FIRST, [FIRST]) == ()
    assert problems(FIRST, []) == ()
    assert "1.2.3 is published" in problems(replace(FIRST, title="other"), [FIRST])[0]


def test_an_id_that_was_dropped_is_not_used_for_something_else() -> None:
    versions = [FIRST, version("1.3.0", {2: None})]
    (problem,) = problems(version("1.4.0", {2: {"name": "weight"}}), versions)
    assert problem == (
        "field id 2: it was pressure int in 1.2.3 and is dropped: an id is never used again, give weight another one"
    )
    assert problems(version("1.4.0", {}), versions) == ()


def test_every_unit_that_is_still_on_its_way_needs_a_conversion() -> None:
    second = version("2.0.0", {3: {"unit": "ms", "conversions": TO_MS}})
    third = version("3.0.0", {3: {"unit": "us", "conversions": (Conversion("ms", 1_000.0),)}})
    (problem,) = problems(third, [FIRST, second], (), [Kind.CONVERTED])
    assert problem == "field took: 1.2.3 has it in s: state how in `conversions`"
    whole = replace(third.fields[2], conversions=(*third.fields[2].conversions, Conversion("s", 1e6)))
    mended = replace(third, fields=tuple(whole if f.id == 3 else f for f in third.fields))
    assert problems(mended, [FIRST, second], (), [Kind.CONVERTED]) == ()
    also_typed = version("2.0.0", {3: {"unit": "ms", "type": INT}})
    assert "1.2.3 has it in s" in problems(also_typed, [FIRST], (), [Kind.RETYPED])[0]


def test_two_units_never_share_a_fingerprint() -> None:
    second = version("2.0.0", {3: {"unit": "ms", "conversions": TO_MS}})
    silent = version("2.1.0", {3: {"unit": "ms"}})
    assert fingerprint(second) != fingerprint(FIRST) == fingerprint(silent)
    assert means_otherwise(FIRST, silent)
    assert any("could not be told from those of 1.2.3" in problem for problem in problems(silent, [FIRST, second]))


def test_what_devices_notice_follows_from_the_fingerprint() -> None:
    assert "until a bundle carries 1.3.0" in on_devices(FIRST, version("1.3.0", {}, Field(9, "note", TEXT)))
    assert "travel alike and count as 1.2.4" in on_devices(FIRST, version("1.2.4", {1: {"description": "x"}}))


def test_a_line_sums_up_a_version() -> None:
    assert summary(None, FIRST) == "4 fields, table lake_a.field.press"
    newer = version("1.3.0", {2: None, 3: {"name": "duration"}}, Field(9, "note", TEXT))
    assert summary(FIRST, newer) == "drops pressure, int; adds note, string; renames took to duration"
    assert summary(FIRST, replace(FIRST, version="1.2.4")) == "nothing"


def test_another_contract_is_no_version() -> None:
    with pytest.raises(ContractError, match="its id is its identity"):
        diff(FIRST, replace(FIRST, id="pump"))


@pytest.mark.parametrize("number", ["1", "1.0", "1.0.0.0", "01.0.0", "1.0.x", "1.0.-1", ""])
def test_a_version_is_three_numbers(number: str) -> None:
    with pytest.raises(ContractError, match=r"MAJOR\.MINOR\.PATCH"):
        check(replace(FIRST, version=number))


@given(st.permutations(["1.2.3", "1.10.0", "2.0.0", "1.2.10"]))
def test_versions_are_ordered_by_number(numbers: list[str]) -> None:
    ordered = sorted((replace(FIRST, version=number) for number in numbers), key=lambda contract: contract.number)
    assert [contract.version for contract in ordered] == ["1.2.3", "1.2.10", "1.10.0", "2.0.0"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conversions": TO_MS}, "conversions from other units"),
        ({"unit": None, "conversions": TO_MS}, "expected a unit"),
        ({"unit": "ms", "conversions": (Conversion("s", 0.0),)}, "a factor other than 0"),
        ({"unit": "ms", "conversions": (Conversion("s", float("nan")),)}, "all numbers finite"),
        ({"unit": "ms", "conversions": (*TO_MS, *TO_MS)}, "conversions from other units"),
    ],
)
def test_a_conversion_is_from_another_unit_by_a_number(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        check(version("2.0.0", {3: changes}))


def test_conversions_stand_in_the_document_and_travel() -> None:
    document = yaml.safe_load((documents_dir() / "clicks.odcs.yaml").read_text(encoding="utf-8"))
    (dwell,) = [p for p in document["schema"][0]["properties"] if p["name"] == "dwell_s"]
    custom = {entry["property"]: entry for entry in dwell["customProperties"]}
    custom["unit"]["value"] = "ms"
    dwell["customProperties"].append(
        {
            "property": "conversions",
            "value": [{"unit": "s", "factor": 1000}, {"unit": "min", "factor": 6e4, "offset": 1}],
        }
    )
    found = contract_of(document)
    assert found.field("dwell_s").conversions == (Conversion("s", 1_000.0), Conversion("min", 60_000.0, 1.0))
    assert decode(encode(found)) == found
    dwell["customProperties"][-1]["value"] = [{"unit": "s"}]
    with pytest.raises(ContractError, match="field dwell_s: conversions: expected a list of unit, factor and offset"):
        contract_of(document)


def test_shipped_contracts_keep_the_fingerprints_that_devices_know() -> None:
    assert {c.id: f"{fingerprint(c):016x}" for c in read_contracts() if c.id in ("telemetry", "clicks")} == FINGERPRINTS


FINGERPRINTS = {"clicks": "7d7d18b34774fb7a", "telemetry": "4e65068ec3d35924"}
