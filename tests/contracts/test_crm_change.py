"""Changes of CRM records: what survives their JSON form, and what is refused with which reason."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.crm_change import (
    CHANGE_BYTES_MAX,
    NAME_CHARS_MAX,
    SCOPE_CHARS_MAX,
    Cause,
    CrmChange,
    CrmMessage,
    Kind,
    Snapshot,
    SnapshotEnd,
    Version,
    decode,
    encode,
    link,
    values,
)
from contracts.errors import CrmChangeError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("a", "é", "华")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def plain(**changed: Any) -> dict[str, Any]:
    """A change as JSON would have it."""
    return {
        "type": "change", "system": "zoho", "tenant": "t", "object": "Deals", "record": "5725767000003000010",
        "kind": "updated", "version": [1_000, 2], "captured_at_ms": 1,
    } | changed  # fmt: skip


@given(st.dictionaries(st.sampled_from(("Stage", "金额", "Amount__c")), JSON))
def test_values_survive_as_they_are(fields: dict[str, Any]) -> None:
    change = CrmChange(
        "salesforce", "t", "Account", "001", Kind.CREATED, Version(5, 6), 7, values(fields), full=True,
        cause=Cause("ui", "edgesync", "张"), position="AAAA", snapshot=Snapshot("s", 4),
    )  # fmt: skip
    found = decode(encode(change))
    assert found == change
    assert isinstance(found, CrmChange)
    assert {name: msgspec.json.decode(bytes(value)) for name, value in found.fields.items()} == fields


def test_a_decimal_keeps_its_digits() -> None:
    exact = msgspec.json.encode(plain()).replace(b'"kind"', b'"fields":{"Amount":12345678901234567890.10},"kind"')
    change = decode(exact)
    assert isinstance(change, CrmChange)
    assert bytes(change.fields["Amount"]) == b"12345678901234567890.10"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"record": ""}, "malformed"),
        ({"record": "x" * (NAME_CHARS_MAX + 1)}, "malformed"),
        ({"tenant": "x" * (SCOPE_CHARS_MAX + 1)}, "malformed"),
        ({"kind": "merged"}, "malformed"),
        ({"version": [-1]}, "malformed"),
        ({"version": [10**18]}, "malformed"),
        ({"unknown": 1}, "malformed"),
        ({"fields": {"a": "x\0"}}, "nul_character"),
        ({"fields": {"a": [{"b\0": 1}]}}, "nul_character"),
        ({"record": "r\0"}, "nul_character"),
        ({"kind": "deleted", "fields": {"a": 1}}, "contradiction"),
        ({"kind": "gap", "full": True}, "contradiction"),
        ({"snapshot": {"id": "s", "at_us": 1}}, "contradiction"),
        ({"version": [86_400_001_001]}, "from_the_future"),
        ({"fields": {"a": "x" * CHANGE_BYTES_MAX}}, "too_large"),
        ({"type": "snapshot_end", "records": 1}, "malformed"),
    ],
)
def test_what_cannot_be_followed_has_a_reason(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(CrmChangeError) as found:
        decode(msgspec.json.encode(plain(**changed)))
    assert found.value.reason == reason
    assert len(str(found.value)) < 1_000


@pytest.mark.parametrize("value", [b'"\\ud800"', b'"\xff"', b"NaN", b"1 2", b"[" * 50_000 + b"]" * 50_000])
def test_a_value_that_is_no_json_is_refused(value: bytes) -> None:
    data = msgspec.json.encode(plain()).replace(b'"kind"', b'"fields":{"a":' + value + b'},"kind"')
    with pytest.raises(CrmChangeError) as found:
        decode(data)
    assert found.value.reason == "malformed"


def test_changes_of_one_record_share_a_key_and_no_other_record_does() -> None:
    snapshot = Snapshot("s", 1)
    messages: list[CrmMessage] = [
        CrmChange("s", "t", "o", "1", Kind.UPDATED, Version(1), 1),
        CrmChange("s", "t", "o", "1", Kind.DELETED, Version(2), 1),
        CrmChange("s", "t", "o", "2", Kind.UPDATED, Version(1), 1),
        SnapshotEnd("s", "t", "o", snapshot, 2),
    ]
    assert [link(message) for message in messages] == [b"s/t/o/1", b"s/t/o/1", b"s/t/o/2", b"s/t/o"]
    assert decode(encode(messages[3])) == messages[3]
