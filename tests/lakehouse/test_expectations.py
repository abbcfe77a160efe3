"""What follows from a contract, what an analyst's file says, and which of it is in force."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from contracts.contract import Checks, Contract
from lakehouse.errors import ExpectationError
from lakehouse.quality.analyst import EXPECTATIONS_MAX, Shelf, parse
from lakehouse.quality.expectations import Kind, Severity, Source, closed, of_contract
from tests.lakehouse.frames import CONTRACTS

CLICKS = CONTRACTS["clicks"]
GOOD = """
contract: clicks
expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: dwell_s, min_value: 0, max_value: 3600, mostly: 0.99}
    severity: warning
    meta: {name: dwell, notes: 没有人读一个小时以上}
  - type: expect_column_values_to_be_between
    kwargs: {column: occurred_at, min_value: "2025-01-01T00:00:00Z"}
  - type: expect_column_values_to_match_regex
    kwargs: {column: object, regex: '\\.pdf$'}
  - type: expect_table_row_count_to_be_between
    kwargs: {min_value: 1}
"""


def checked(**checks: Checks) -> Contract:
    return replace(CLICKS, fields=tuple(replace(f, checks=checks.get(f.name, f.checks)) for f in CLICKS.fields))


def test_the_end_of_a_text_is_its_end_to_every_engine() -> None:
    shown = {r"^a$": r"^a\Z", r"a\$": r"a\$", r"[$a]$": r"[$a]\Z", r"\\$": r"\\\Z", r"[\]$]": r"[\]$]", "$|b": r"\Z|b"}
    assert {pattern: closed(pattern, r"\Z") for pattern in shown} == shown


def test_every_check_of_a_contract_is_expected_of_its_rows() -> None:
    contract = checked(
        user_id=Checks(unique=True, pattern="^c", reference="visits.contact_id"),
        occurred_at=Checks(age_max_s=60, ahead_max_s=5),
        platform=Checks(known_values=("web",)),
        dwell_s=Checks(0, 10),
    )
    found = {one.rule: one for one in of_contract(contract, CONTRACTS)}
    assert found["identity.unique"].columns == ("origin", "epoch", "seq")
    assert (found["occurred_at.age"].low, found["occurred_at.age"].high) == (-5, 60)
    assert found["user_id.reference"].target == ("lake_b.behaviour.visits", "contact_id")
    hints = {rule for rule, one in found.items() if one.severity is Severity.HINT}
    assert hints == {"user_id.unique", "user_id.reference", "platform.known_values"}
    assert {"user_id.required", "user_id.pattern", "dwell_s.range"} <= found.keys()
    assert all(one.source is Source.CONTRACT and one.text for one in found.values())
    assert "user_id.reference" not in {one.rule for one in of_contract(contract)}


def test_a_file_in_the_form_of_great_expectations_is_followed() -> None:
    contract, found = parse(GOOD, CONTRACTS)
    assert contract == "clicks"
    assert [one.rule for one in found] == ["dwell", "occurred_at.2", "object.3", "table.4"]
    assert [one.kind for one in found] == [Kind.BETWEEN, Kind.BETWEEN, Kind.PATTERN, Kind.ROW_COUNT]
    assert (found[0].severity, found[0].mostly, found[0].text) == (Severity.HINT, 0.99, "没有人读一个小时以上")
    assert found[2].text == r"object matches \.pdf$"
    assert all(one.source is Source.ANALYST for one in found)


def one_of(text: str) -> str:
    return f"contract: clicks\nexpectations:\n  - {text}\n"


WRONG = [
    ("", "expected `contract`"),
    (":\n- [", "expected `contract`"),
    ("contract: nobody\nexpectations: []", "not published"),
    (one_of("{type: expect_the_moon}"), "expected one of"),
    (one_of("{type: expect_column_values_to_be_unique, kwargs: {column: nothing}}"), "no column"),
    (one_of("{type: expect_column_values_to_be_between, kwargs: {column: dwell_s}}"), "min_value or max_value"),
    (one_of("{type: expect_column_values_to_be_between, kwargs: {column: event, min_value: 1}}"), "of numbers"),
    (one_of("{type: expect_column_values_to_be_between, kwargs: {column: dwell_s, min_value: a}}"), "numbers"),
    (one_of("{type: expect_column_values_to_be_between, kwargs: {column: occurred_at, min_value: 5}}"), "ISO 8601"),
    (one_of("{type: expect_column_values_to_be_in_set, kwargs: {column: event}}"), "value_set"),
    (one_of("{type: expect_column_values_to_match_regex, kwargs: {column: dwell_s, regex: a}}"), "expected text"),
    (one_of("{type: expect_column_values_to_match_regex, kwargs: {column: event, regex: '(?=a)'}}"), "RE2"),
    (one_of("{type: expect_column_values_to_match_regex, kwargs: {column: event}}"), "expected a regex"),
    (one_of("{type: expect_column_values_to_be_unique, kwargs: {column: event, mostly: 2}}"), "mostly"),
    (one_of("{type: expect_column_values_to_be_unique, kwargs: {column: event, more: 2}}"), "more"),
    (one_of("{type: expect_column_values_to_be_unique, kwargs: {column: event}, meta: {name: a}}") * 1
     + "  - {type: expect_column_values_to_be_unique, kwargs: {column: event}, meta: {name: a}}\n", "must differ"),
    (
        "contract: clicks\nexpectations:\n"
        + "  - {type: expect_column_values_to_be_unique, kwargs: {column: event}}\n" * (EXPECTATIONS_MAX + 1),
        "at most",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_a_file_that_cannot_be_followed_says_why(text: str, says: str) -> None:
    with pytest.raises(ExpectationError, match=says):
        parse(text, CONTRACTS)


def test_a_broken_file_is_named_once_and_its_last_good_version_stays_in_force(tmp_path: Path) -> None:
    file = tmp_path / "clicks.yaml"
    file.write_text(GOOD, encoding="utf-8")
    shelf = Shelf(tmp_path, {})
    assert shelf.look(CONTRACTS) == {}
    assert len(shelf.expected("clicks")) == 4
    file.write_text("contract: [", encoding="utf-8")
    assert set(shelf.look(CONTRACTS)) == set(shelf.broken) == {"clicks.yaml"}
    assert shelf.look(CONTRACTS) == {}
    assert len(shelf.expected("clicks")) == 4
    restarted = Shelf(tmp_path, shelf.good)
    restarted.look(CONTRACTS)
    assert len(restarted.expected("clicks")) == 4
    assert set(restarted.broken) == {"clicks.yaml"}
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in shelf.look(CONTRACTS)["clicks.yaml"]
    file.write_text(one_of("{type: expect_column_values_to_be_unique, kwargs: {column: event}}"), encoding="utf-8")
    assert shelf.look(CONTRACTS) == {}
    assert (len(shelf.expected("clicks")), shelf.broken) == (1, {})
    file.unlink()
    shelf.look(CONTRACTS)
    assert shelf.expected("clicks") == ()


def test_a_file_comes_into_force_with_the_contract_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "clicks.yaml").write_text(GOOD, encoding="utf-8")
    shelf = Shelf(tmp_path, {})
    assert "not published" in shelf.look({})["clicks.yaml"]
    assert shelf.look(CONTRACTS) == {}
    assert len(shelf.expected("clicks")) == 4
