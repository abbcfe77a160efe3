"""Every line is either a valid event or refused with a reason; the fast and the slow check agree."""

import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.contract import Checks, Contract, Field, FieldType
from edge_agent.core.arrays import ARRAYS
from edge_agent.core.events import Reader, json_bytes
from edge_agent.core.refusal import EVENT_BYTES_MAX, refusal
from tests.edge_agent.plant import CONTRACTS, lines_of, reading

CONTRACT = Contract(
    id="shape",
    version="1.0.0",
    title="",
    purpose="",
    owner="",
    catalog="c",
    namespace="n",
    retention_days=1,
    fields=(
        Field(1, "name", FieldType.STRING, True, checks=Checks(max_length=5)),
        Field(2, "kind", FieldType.STRING, checks=Checks(valid_values=("a", "b"))),
        Field(3, "whole", FieldType.INT, True, checks=Checks(minimum=-10, maximum=10)),
        Field(4, "long", FieldType.LONG),
        Field(5, "small", FieldType.FLOAT, checks=Checks(minimum=0)),
        Field(6, "real", FieldType.DOUBLE, True),
        Field(7, "yes", FieldType.BOOLEAN),
        Field(8, "moment", FieldType.TIMESTAMPTZ, True),
    ),
)
GOOD: dict[str, Any] = {"name": "n", "whole": 1, "real": 0.5, "moment": "2026-01-01T00:00:00.25Z"}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-12, 12),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=7),
    st.sampled_from(["a", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00"]),
    st.lists(st.integers(), max_size=1),
)
EVENTS = st.dictionaries(st.sampled_from([f.name for f in CONTRACT.fields]), SCALARS).map(lambda e: GOOD | e)


def code(**changes: Any) -> str:
    event = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    (entry,) = Reader(CONTRACT, ARRAYS).read(3, [json.dumps(event).encode()]).refused
    assert entry.seq == 3
    return entry.code


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": ...}, "name.required"),
        ({"name": None}, "name.required"),
        ({"name": 5}, "name.type"),
        ({"name": "äöüßéx"}, "name.max_length"),
        ({"kind": "c"}, "kind.valid_values"),
        ({"whole": 1.5}, "whole.type"),
        ({"whole": True}, "whole.type"),
        ({"whole": math.nan}, "whole.finite"),
        ({"whole": -11}, "whole.minimum"),
        ({"whole": 11}, "whole.maximum"),
        ({"long": 2**63}, "long.type"),
        ({"small": -0.5}, "small.minimum"),
        ({"small": 1e39}, "small.finite"),  # finite only in 64 bits
        ({"real": math.nan}, "real.finite"),
        ({"real": -math.inf}, "real.finite"),
        ({"real": 10**400}, "real.finite"),
        ({"yes": 1}, "yes.type"),
        ({"moment": "2026-01-01T00:00:00"}, "moment.type"),  # no time zone
        ({"moment": "yesterday"}, "moment.type"),
    ],
)
def test_a_refused_event_names_field_and_check(changes: dict[str, Any], expected: str) -> None:
    assert code(**changes) == expected


@pytest.mark.parametrize("line", [b"", b"{", b"5", b"[1]", b'{"a":1} {"a":2}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_event_is_refused_as_such(line: bytes) -> None:
    checked = Reader(CONTRACT, ARRAYS).read(0, [line, json.dumps(GOOD).encode(), line])
    expected = "event.max_bytes" if len(line) > EVENT_BYTES_MAX else "event.json"
    assert [(entry.seq, entry.code) for entry in checked.refused] == [(0, expected), (2, expected)]
    assert checked.events.seqs.tolist() == [1]


def test_lines_cannot_borrow_from_each_other() -> None:
    """Three lines that would be three valid values if they were parsed as one text."""
    good = json.dumps(GOOD).encode()
    checked = Reader(CONTRACT, ARRAYS).read(0, [good + b" " + good, b'{"x":[1', b"2]," + good[1:]])
    assert [entry.code for entry in checked.refused] == ["event.json"] * 3


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_every_line_is_valid_or_refused_and_both_checks_agree(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event).encode() for event in events]
    checked = Reader(CONTRACT, ARRAYS).read(100, lines)
    refused = {entry.seq: entry.code for entry in checked.refused}
    assert sorted([*checked.events.seqs.tolist(), *refused]) == list(range(100, 100 + len(lines)))
    for seq, line in enumerate(lines, 100):
        slow = refusal(CONTRACT, line)
        if seq in refused and refused[seq] != "small.finite":
            assert slow == refused[seq]
        elif seq not in refused:
            assert slow == "event.json"  # it finds nothing to refuse


@given(st.datetimes(timezones=st.timezones()))
def test_times_are_exact_microseconds(moment: Any) -> None:
    text = moment.astimezone(datetime.UTC).isoformat()
    events = Reader(CONTRACT, ARRAYS).read(0, [json.dumps(GOOD | {"moment": text}).encode()]).events
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    assert events.columns["moment"].tolist() == [since // datetime.timedelta(microseconds=1)]  # type: ignore[union-attr]


def test_text_columns_are_read_as_numbers_and_times() -> None:
    event = {"name": "n", "whole": "7", "small": "0.5", "real": "nan", "moment": "2026-01-01T00:00:00Z"}
    checked = Reader(CONTRACT, ARRAYS, lax=True).read(
        0, lines_of([event, event | {"real": "2"}, event | {"whole": "x"}])
    )
    assert [entry.code for entry in checked.refused] == ["real.finite", "whole.type"]
    assert checked.events.columns["whole"].tolist() == [7]  # type: ignore[union-attr]


def test_json_size_is_never_more_than_the_source_wrote_nor_than_the_contract_names() -> None:
    reader = Reader(CONTRACTS["telemetry"], ARRAYS)
    compact = lines_of([reading(seq) for seq in range(20)])
    size = sum(map(len, compact)) + len(compact)
    assert json_bytes(reader.read(0, compact).events) == size
    spaced = [json.dumps(reading(seq)).encode() for seq in range(20)]
    assert json_bytes(reader.read(0, spaced).events) == size
    labelled = lines_of([reading(seq, anomaly=1) for seq in range(20)])
    assert json_bytes(reader.read(0, labelled).events) <= size + 20 * 7  # microseconds are written in full
    assert json_bytes(reader.read(0, [b"x"]).events) == 0
