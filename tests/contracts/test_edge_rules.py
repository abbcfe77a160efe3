"""Edge rules as documents: what is refused and why, and what the published schema says of them."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import edge_rules
from contracts.bundle import Bundle, Stream, decode, encode
from contracts.contract import Contract, Field, FieldType
from contracts.edge_rule_check import check
from contracts.edge_rule_check import decode as decode_rule
from contracts.edge_rules import (
    DEPTH_MAX,
    FIELDS_MAX,
    HORIZON_MS_MAX,
    KEYED_RULES_MAX,
    NODES_MAX,
    RULES_MAX,
    TEXT_CHARS_MAX,
    TEXTS_MAX,
    VALUES_MAX,
    AllOf,
    AnyOf,
    Between,
    Compare,
    ContainsAny,
    DeadBand,
    Deduplicate,
    Drop,
    EdgeRule,
    IsNull,
    Keep,
    Not,
    OnChange,
    OneOf,
    Sample,
    constant,
    contains_any,
    normalised,
)
from contracts.errors import ContractError, RuleError
from contracts.sampling import draw, draws_below

FIELDS = (
    Field(1, "asset_id", FieldType.STRING, required=True),
    Field(2, "occurred_at", FieldType.TIMESTAMPTZ, required=True),
    Field(3, "count", FieldType.LONG),
    Field(4, "temperature", FieldType.FLOAT),
    Field(5, "on", FieldType.BOOLEAN),
    Field(6, "note", FieldType.STRING),
    Field(7, "volume", FieldType.DOUBLE),
)
CONTRACT = Contract(
    "plant", "1.0.0", "Plant", "Tests.", "tests", "lake_a", "field", FIELDS, 1,
    subject_field="asset_id", event_time_field="occurred_at",
)  # fmt: skip
WHOLE = EdgeRule(
    "quote-1",
    3,
    OnChange((DeadBand("temperature", absolute=0.5), DeadBand("count", relative=0.1)), 60_000, ("asset_id",)),
    AllOf(
        (
            AnyOf((ContainsAny("note", ("预算紧张", "需要比价")), IsNull("note"))),
            Not(OneOf("asset_id", ("a", "b"))),
            Between("occurred_at", "2026-01-01T00:00:00Z", "2026-12-31T23:59:59+08:00"),
            Compare("on", "eq", True),
        )
    ),
    "客户要比价",
)


def refused(when: Any = None, action: Any = None, contract: Contract = CONTRACT) -> str:
    """Return what is said about a rule that goes out and comes back as a document."""
    rule = EdgeRule("probe", 2, action or Keep(), when)
    with pytest.raises(RuleError) as caught:
        decode_rule(edge_rules.encode(rule), contract)
    return str(caught.value)


def test_a_rule_survives_its_json_form() -> None:
    assert decode_rule(edge_rules.encode(WHOLE), CONTRACT) == WHOLE


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (Compare("absent", "eq", 1), ["'absent'", "plant 1"]),
        (Compare("count", "eq", "1"), ["'count' (long)", "expected a whole number of 64 bits, found '1'"]),
        (Compare("count", "eq", 1.5), ["'count'", "found 1.5"]),
        (Compare("count", "eq", True), ["'count'", "found True"]),
        (Compare("count", "eq", 2**63), ["'count'", str(2**63)]),
        (Compare("on", "eq", 1), ["'on' (boolean)", "expected true or false, found 1"]),
        (Compare("on", "lt", True), ["'on'", "'lt' takes a number or a time"]),
        (Compare("note", "ge", "a"), ["'note'", "'ge' takes a number or a time"]),
        (Compare("temperature", "eq", 1e39), ["'temperature' (float)", "finite number of 32 bits"]),
        (Compare("volume", "eq", 10**400), ["'volume' (double)", "expected a finite number"]),
        (Compare("occurred_at", "gt", "2026-01-01T00:00:00"), ["'occurred_at'", "with its zone"]),
        (Compare("occurred_at", "gt", "yesterday"), ["'occurred_at'", "'yesterday'"]),
        (Compare("occurred_at", "gt", 5), ["'occurred_at'", "found 5"]),
        (OneOf("count", (1, "two")), ["'count'", "found 'two'"]),
        (Between("note", "a", "b"), ["'note'", "'between'"]),
        (ContainsAny("count", ("1",)), ["'count'", "takes a string field"]),
        (Not(AllOf((IsNull("gone"),))), ["'gone'"]),
    ],
    ids=str,
)
def test_a_rule_that_does_not_fit_its_contract_is_named_with_its_field(when: Any, said: list[str]) -> None:
    message = refused(when)
    assert "probe@2" in message
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Deduplicate(("gone",), 1), "'gone'"),
        (OnChange((DeadBand("gone"),), 1), "'gone'"),
        (OnChange((DeadBand("count"),), 1, ("gone",)), "'gone'"),
        (OnChange((DeadBand("note", absolute=1.0),), 1), "takes a number field"),
        (OnChange((DeadBand("occurred_at", relative=1.0),), 1), "takes a number field"),
        (OnChange((DeadBand("count", absolute=1.0, relative=1.0),), 1), "found both"),
    ],
    ids=str,
)
def test_an_action_that_does_not_fit_its_contract_is_named(action: Any, said: str) -> None:
    message = refused(action=action)
    assert "probe@2" in message
    assert said in message


@pytest.mark.parametrize("time", [None, "served_at"])
def test_rules_that_remember_need_an_event_time(time: str | None) -> None:
    fields = (*FIELDS, Field(9, "served_at", FieldType.TIMESTAMPTZ))
    contract = msgspec.structs.replace(CONTRACT, fields=fields, event_time_field=time)
    assert "required event time field" in refused(action=Deduplicate(("note",), 5), contract=contract)


LEAF = IsNull("note")


def nested(depth: int) -> Any:
    when: Any = LEAF
    for _ in range(depth - 1):
        when = Not(when)
    return when


def limited(**changes: Any) -> EdgeRule:
    return msgspec.structs.replace(EdgeRule("x" * 63, 2**31 - 1, Keep(), None, "题" * TEXT_CHARS_MAX), **changes)


@pytest.mark.parametrize(
    "rule",
    [
        limited(),
        limited(when=nested(DEPTH_MAX)),
        limited(when=AllOf((LEAF,) * (NODES_MAX - 1))),
        limited(when=OneOf("count", tuple(range(VALUES_MAX)))),
        limited(when=ContainsAny("note", ("比" * TEXT_CHARS_MAX,) * TEXTS_MAX)),
        limited(action=Sample(0.0)),
        limited(action=Sample(1.0)),
        limited(action=Deduplicate(("note",) * FIELDS_MAX, HORIZON_MS_MAX)),
        limited(action=OnChange((DeadBand("count", 0.0),) * FIELDS_MAX, 1)),
    ],
    ids=str,
)
def test_a_rule_at_every_limit_is_taken(rule: EdgeRule) -> None:
    assert decode_rule(edge_rules.encode(rule), CONTRACT) == rule


@pytest.mark.parametrize(
    "rule",
    [
        limited(id="x" * 64),
        limited(id=""),
        limited(id="Upper"),
        limited(id="line\n"),
        limited(version=0),
        limited(version=2**31),
        limited(title="题" * (TEXT_CHARS_MAX + 1)),
        limited(when=nested(DEPTH_MAX + 1)),
        limited(when=AllOf((LEAF,) * NODES_MAX)),
        limited(when=AllOf(())),
        limited(when=OneOf("count", tuple(range(VALUES_MAX + 1)))),
        limited(when=OneOf("count", ())),
        limited(when=ContainsAny("note", ("a",) * (TEXTS_MAX + 1))),
        limited(when=ContainsAny("note", ("",))),
        limited(when=ContainsAny("note", ("a" * (TEXT_CHARS_MAX + 1),))),
        limited(action=Sample(1.01)),
        limited(action=Sample(-0.1)),
        limited(action=Deduplicate((), 1)),
        limited(action=Deduplicate(("note",), 0)),
        limited(action=Deduplicate(("note",), HORIZON_MS_MAX + 1)),
        limited(action=OnChange((), 1)),
        limited(action=OnChange((DeadBand("count", -1.0),), 1)),
    ],
    ids=str,
)
def test_a_rule_beyond_a_limit_is_refused(rule: EdgeRule) -> None:
    with pytest.raises(RuleError, match="edge rule"):
        decode_rule(edge_rules.encode(rule), CONTRACT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"id":"a","version":1,"action":{"do":"forget"}}',
        b'{"id":"a","version":1,"action":{"do":"keep"},"since":1}',
        b'{"id":"a","version":1,"action":{"do":"keep","fraction":1}}',
        b'{"id":"a","version":1,"action":{"do":"keep"},"when":' + b'{"test":"not","of":' * 100_000,
        b'{"id":"a","version":1,"action":{"do":"keep"},"when":' + b'{"test":"not","of":' * 900
        + b'{"test":"is_null","field":"note"}' + b"}" * 901,
    ],
    ids=lambda data: repr(data[:60]),
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_typed_error(data: bytes) -> None:
    with pytest.raises(RuleError, match="edge rule"):
        decode_rule(data, CONTRACT)


@given(st.data())
def test_a_damaged_document_ends_in_a_rule_or_a_typed_error(data: st.DataObject) -> None:
    document = bytearray(edge_rules.encode(WHOLE))
    for _ in range(data.draw(st.integers(1, 4))):
        document[data.draw(st.integers(0, len(document) - 1))] = data.draw(st.integers(0, 255))
    try:
        rule = decode_rule(bytes(document), CONTRACT)
    except RuleError:
        return
    assert decode_rule(edge_rules.encode(rule), CONTRACT) == rule


def test_an_error_of_form_names_the_rule_that_the_document_claims() -> None:
    with pytest.raises(RuleError, match="'night-shift' version 4"):
        decode_rule(b'{"id":"night-shift","version":4,"action":{"do":"sample","fraction":2}}', CONTRACT)


def test_a_streams_rules_are_bounded_and_have_ids_of_their_own() -> None:
    def many(count: int, action: Any) -> tuple[EdgeRule, ...]:
        return tuple(EdgeRule(f"r{number}", 1, action) for number in range(count))

    check(many(RULES_MAX, Drop()), CONTRACT)
    check(many(KEYED_RULES_MAX, Deduplicate(("note",), 5)), CONTRACT)
    for rules in (many(RULES_MAX + 1, Drop()), many(KEYED_RULES_MAX + 1, Deduplicate(("note",), 5))):
        with pytest.raises(RuleError, match="expected at most"):
            check(rules, CONTRACT)
    with pytest.raises(RuleError, match="ids that differ"):
        check((EdgeRule("same", 1, Keep()), EdgeRule("same", 2, Drop())), CONTRACT)


def test_a_bundle_carries_rules_and_refuses_those_that_its_contracts_do_not_fit() -> None:
    bundle = Bundle("1", (CONTRACT,), (Stream("plant", rules=(WHOLE,)),))
    assert decode(encode(bundle)) == bundle
    wrong = Stream("plant", rules=(EdgeRule("wrong", 1, Keep(), IsNull("gone")),))
    with pytest.raises(RuleError, match="wrong@1"):
        decode(encode(Bundle("1", (CONTRACT,), (wrong,))))
    with pytest.raises(ContractError, match="expected windows"):
        decode(encode(Bundle("1", (CONTRACT,), (Stream("plant", otherwise="aggregate"),))))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("请问预算紧张怎么办", "预算紧张"),
        ("ＩＰ６７防护", "ip67"),
        ("STRASSE", "straße"),
        ("cafe\u0301", "CAFÉ"),
        ("ﬁlter", "FILTER"),
        ("ΌΔΟΣ", "όδος"),
        ("한글", "한글"),
    ],
)
def test_texts_are_compared_without_case_width_and_composition(text: str, word: str) -> None:
    assert contains_any(text, (normalised(word),))


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_the_quick_way_for_ascii_says_the_same(text: str) -> None:
    assert normalised(text) == normalised(text + "一")[:-1]


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_becomes_its_microseconds(micros: int) -> None:
    from datetime import UTC, datetime, timedelta

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    assert constant(FIELDS[1], moment.isoformat()) == micros


def test_draws_are_those_of_the_published_generator() -> None:
    # The first three outputs of SplitMix64 from state 0.
    for seq, word in enumerate((0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)):
        assert draw(0, seq) == word >> 11
    with pytest.raises(ValueError, match="expected 0 to 1"):
        draws_below(1.5)


def test_the_schema_names_every_condition_action_and_limit() -> None:
    text = msgspec.json.encode(edge_rules.schema()).decode()
    for word in ("compare", "in", "between", "contains_any", "is_null", "and", "or", "not"):
        assert f'"enum":["{word}"]' in text
    for word in ("keep", "drop", "sample", "deduplicate", "on_change"):
        assert f'"enum":["{word}"]' in text
    for limit in (TEXT_CHARS_MAX, VALUES_MAX, TEXTS_MAX, FIELDS_MAX, HORIZON_MS_MAX):
        assert f":{limit}" in text
