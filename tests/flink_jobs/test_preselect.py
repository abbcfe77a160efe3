"""The preselector's pure parts: it passes everything a rule may want, and stops for nothing."""

import math
from typing import Any, get_args

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts import contract as contracts
from contracts import microbatch, rules, topics
from contracts.candidates import KEY_SHARDS, shard_of
from contracts.contract import Contract, Field, FieldType, fingerprint
from contracts.errors import BatchFormatError
from contracts.microbatch import Codec
from contracts.rules import WORD_OPERATORS, AllOf, Comparison, Condition, CountOf, Operator, Rule
from edge_agent.core.codec.payload import PayloadEncoder
from flink_jobs.triggers.core.conditions import holds
from flink_jobs.triggers.preselect.decoding import Batch, Decoder
from flink_jobs.triggers.preselect.documents import Documents
from flink_jobs.triggers.preselect.grouping import candidates
from flink_jobs.triggers.preselect.row_filter import passing, row_filter
from flink_jobs.triggers.preselect.selection import Counts, select
from tests.flink_jobs.writing import contract_named, micro_batch

SEALED_AT_MS = 1_800_000_000_000
INT32, INT64 = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
FLOAT32, FLOAT64 = st.floats(width=32), st.floats()
WORDS = st.text(st.sampled_from("ab\u4e2d\U0001f600"), max_size=3)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.STRING: WORDS,
    FieldType.INT: INT32,
    FieldType.LONG: INT64,
    FieldType.FLOAT: FLOAT32,
    FieldType.DOUBLE: FLOAT64,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMPTZ: INT64,
}
EVERYTHING = Contract(
    id="everything",
    version="1.0.0",
    title="One field of each type",
    purpose="tests",
    owner="us",
    catalog="lake_a",
    namespace="field",
    fields=(
        Field(1, "subject", FieldType.STRING),
        Field(2, "happened", FieldType.TIMESTAMPTZ),
        *(Field(10 + n, kind.value, kind) for n, kind in enumerate(FieldType)),
        Field(30, "running", FieldType.LONG, required=True, difference=True),
        Field(31, "running_int", FieldType.INT, required=True, difference=True),
    ),
    retention_days=1,
    subject_kind="thing",
    subject_field="subject",
    event_time_field="happened",
)

UNHURRIED = settings(deadline=None)  # a busy machine is no finding
EDGES = st.sampled_from([0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63, 2**80, 0.1, 0.5, -0.0, 1e300, math.inf, True, False])
SCALARS = EDGES | INT64 | FLOAT64.filter(math.isfinite) | WORDS | st.booleans()
ROWS = st.lists(
    st.fixed_dictionaries(
        {field.name: st.none() | VALUES[field.type] for field in EVERYTHING.fields if not field.required}
        | {"running": st.integers(-(2**61), 2**61), "running_int": st.integers(-(2**29), 2**29)}
    ),
    min_size=1,
    max_size=6,
)


OPERATORS: tuple[Operator, ...] = get_args(Operator)


@st.composite
def comparisons(draw: st.DrawFn, rows: list[dict[str, Any]]) -> Comparison:
    """Draw a comparison; half of the time its value stands in a row, as only then edges are met."""
    field = draw(st.sampled_from([*(f.name for f in EVERYTHING.fields), "no_such_field"]))
    present = [row[field] for row in rows if row.get(field) is not None and row[field] == row[field]]
    values = SCALARS | st.sampled_from(present) if present else SCALARS
    op = draw(st.sampled_from(OPERATORS))
    if op in WORD_OPERATORS:
        return Comparison(field, op, draw(st.lists(WORDS.filter(bool), min_size=1, max_size=3).map(tuple)))
    return Comparison(field, op, draw(st.lists(values, max_size=3).map(tuple) if op == "in" else values))


def rule_of(*wanted: Condition) -> Rule:
    return Rule("r", 1, "a rule", "us", "thing", AllOf(wanted, 60), "intent", "action")


def batch(rows: list[dict[str, Any]], origin: str = "device", first_seq: int = 0, **more: Any) -> Batch:
    data = micro_batch(EVERYTHING, rows, first_seq=first_seq, sealed_at_ms=SEALED_AT_MS, **more)
    header, payload = microbatch.parse(data)
    return Batch(origin, header, bytes(payload))


def packed(rows: list[dict[str, Any]], first_seq: int = 0) -> Batch:
    """Return the same batch as a device packs it."""
    seqs = list(range(first_seq, first_seq + len(rows)))
    columns = {field.name: [row.get(field.name) for row in rows] for field in EVERYTHING.fields}
    payload = PayloadEncoder(EVERYTHING).encode(seqs, columns)
    assert payload.codec is Codec.PACKED_ZSTD
    header = replace(batch(rows, first_seq=first_seq).header, raw_bytes=payload.raw_bytes, codec=payload.codec)
    return Batch("device", header, payload.data)


@UNHURRIED
@given(parts=st.lists(st.tuples(ROWS, st.booleans()), max_size=4))
def test_packed_batches_and_arrow_batches_are_the_same_rows(parts: list[tuple[list[dict[str, Any]], bool]]) -> None:
    mixed = [(packed if small else batch)(rows, first_seq=9 * at) for at, (rows, small) in enumerate(parts)]
    plain = [batch(rows, first_seq=9 * at) for at, (rows, _) in enumerate(parts)]
    found, expected = Decoder(EVERYTHING, {}).decode(mixed), Decoder(EVERYTHING, {}).decode(plain)
    assert repr(found.table.to_pylist()) == repr(expected.table.to_pylist())
    assert found.batch_of.tolist() == expected.batch_of.tolist()


def test_a_broken_packed_batch_is_refused() -> None:
    sound = packed([{"running": value, "running_int": 2} for value in (1, 5, 2)])
    broken = Batch("device", replace(sound.header, rows=4), sound.payload)
    with pytest.raises(BatchFormatError, match="packed rows of everything"):
        Decoder(EVERYTHING, {}).decode([broken])


@UNHURRIED
@given(rows=ROWS, data=st.data())
def test_the_filter_never_passes_too_little(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    where = st.lists(comparisons(rows), max_size=2).map(tuple)
    wanted = [Condition("everything", w) for w in data.draw(st.lists(where, min_size=1, max_size=3))]
    found = row_filter(EVERYTHING, [rule_of(*wanted)])
    assert found is not None
    table = Decoder(EVERYTHING, {}).decode([batch(rows)]).table
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    mask = passing(found, table).to_pylist()
    needed = {
        row
        for condition in wanted
        for row in range(len(rows))
        if all(c.field in columns and holds(c, columns[c.field][row]) for c in condition.where)
    }
    assert needed <= {row for row, passes in enumerate(mask) if passes}


def test_the_filter_keeps_back_what_no_rule_wants() -> None:
    rows: list[dict[str, Any]] = [
        {"running": 0, "running_int": 0, "string": "a", "double": 0.4},
        {"running": 0, "running_int": 0, "string": "a", "double": 0.6},
        {"running": 0, "running_int": 0, "string": "b", "double": None},
        {"running": 0, "running_int": 0, "string": None, "double": 0.7},
    ]
    wanted = Condition("everything", (Comparison("string", "eq", "a"), Comparison("double", "ge", 0.5)))
    found = row_filter(EVERYTHING, [rule_of(wanted)])
    assert found is not None
    assert found.fields == ("double", "string")
    table = Decoder(EVERYTHING, {}).decode([batch(rows)]).table
    assert passing(found, table).to_pylist() == [False, True, False, False]


def test_rules_about_another_subject_want_nothing() -> None:
    about_customers = Rule("r", 1, "t", "us", "customer", CountOf(Condition("everything"), 1, 60), "i", "a")
    assert row_filter(EVERYTHING, [about_customers]) is None


@UNHURRIED
@given(groups=st.lists(ROWS, min_size=1, max_size=4))
def test_batches_decoded_together_are_the_rows_that_were_written(groups: list[list[dict[str, Any]]]) -> None:
    firsts = [7 + 1_000 * n for n in range(len(groups))]
    decoded = Decoder(EVERYTHING, {}).decode(
        [batch(rows, first_seq=at) for rows, at in zip(groups, firsts, strict=True)]
    )
    flat = [row for rows in groups for row in rows]
    assert decoded.table.column("running").to_pylist() == [row["running"] for row in flat]
    assert decoded.table.column("running_int").to_pylist() == [row["running_int"] for row in flat]
    assert decoded.table.column("string").to_pylist() == [row["string"] for row in flat]
    seqs = [at + n for rows, at in zip(groups, firsts, strict=True) for n in range(len(rows))]
    assert decoded.table.column("seq").to_pylist() == seqs
    assert decoded.batch_of.tolist() == [n for n, rows in enumerate(groups) for _ in rows]


@UNHURRIED
@given(groups=st.lists(ROWS, min_size=1, max_size=4))
def test_every_row_with_a_subject_is_in_one_message_of_its_batch_and_shard(groups: list[list[dict[str, Any]]]) -> None:
    batches = [batch(rows, origin=f"d{n}", first_seq=100 * n) for n, rows in enumerate(groups)]
    found = row_filter(EVERYTHING, [rule_of(Condition("everything"))])
    assert found is not None
    sent = list(candidates(Decoder(EVERYTHING, {}).decode(batches), found, ruleset=3))
    rows = {
        (message.origin, seq): (subject, time_us)
        for message in sent
        for seq, time_us, subject in zip(*message.columns[:3], strict=True)
    }
    assert rows == {
        (f"d{n}", 100 * n + at): (
            row["subject"],
            SEALED_AT_MS * 1_000 if row["happened"] is None else row["happened"],
        )
        for n, written in enumerate(groups)
        for at, row in enumerate(written)
        if row["subject"] is not None
    }
    for message in sent:
        assert {shard_of(subject) for subject in message.columns[2]} == {message.shard}
        assert 0 <= message.shard < KEY_SHARDS
        assert message.ruleset == 3
    assert len({(message.origin, message.shard) for message in sent}) == len(sent)


CLICKS = contract_named("clicks")
VIEW = {"user_id": "u", "session_id": "s", "event": "view", "occurred_at": 1_000_000}
VIEWS = Rule(
    "views",
    1,
    "t",
    "us",
    "customer",
    CountOf(Condition("clicks", (Comparison("event", "eq", "view"),)), 1, 60),
    "i",
    "a",
)


def documents(*live: Rule, known: tuple[Contract, ...] = (CLICKS,)) -> Documents:
    made = Documents()
    for contract in known:
        made.take(topics.CONTRACTS, f"contract/{contract.id}/{contract.version}", contracts.encode(contract), 0)
    for offset, rule in enumerate(live):
        made.take(topics.RULES, rule.id, rules.encode(rule), offset)
    return made


def test_a_bad_batch_does_not_stop_its_neighbours() -> None:
    good = [micro_batch(CLICKS, [VIEW], first_seq=seq) for seq in range(3)]
    header, _ = microbatch.parse(good[0])
    rubbish = microbatch.seal(header, b"no zstd frame")
    longer = microbatch.Header(
        fingerprint=fingerprint(CLICKS),
        epoch=1,
        first_seq=0,
        span=2,
        rows=2,
        raw_bytes=header.raw_bytes,
        sealed_at_ms=0,
    )
    lying = microbatch.seal(longer, bytes(microbatch.parse(good[0])[1]))
    bad = [b"", good[0][:-1], b"X" + good[0][1:], rubbish, lying]
    counts = Counts()
    records = [("d", data) for data in [good[0], *bad, *good[1:]]]
    sent = list(select(records, documents(VIEWS), counts))
    assert [message.columns[0] for message in sent] == [[0], [1], [2]]
    assert (counts.batches, counts.unreadable_batches, counts.candidate_rows) == (8, 5, 3)


def test_unknown_contracts_and_unwanted_batches_are_counted() -> None:
    counts = Counts()
    records = [("d", micro_batch(CLICKS, [VIEW])), ("d", micro_batch(EVERYTHING, [{"running": 0, "running_int": 0}]))]
    assert list(select(records, documents(), counts)) == []
    assert (counts.unwanted_batches, counts.unknown_contract_batches) == (1, 1)


def test_a_rule_is_in_force_at_once_and_out_of_force_when_deleted() -> None:
    known = documents()
    record = ("d", micro_batch(CLICKS, [VIEW]))
    assert list(select([record], known, Counts())) == []
    known.take(topics.RULES, "views", rules.encode(VIEWS), 5)
    (message,) = select([record], known, Counts())
    assert message.ruleset == 5
    known.take(topics.RULES, "views", None, 6)
    assert list(select([record], known, Counts())) == []
    assert known.rules.offset == 6


@pytest.mark.parametrize(
    "value", [b"{", b'{"id": "views"}', rules.encode(VIEWS).replace(b'"id":"views"', b'"id":"else"')]
)
def test_a_rule_that_cannot_be_followed_is_passed_over(value: bytes) -> None:
    known = documents(VIEWS)
    known.take(topics.RULES, "views", value, 9)
    assert (known.rules.live, known.rules.offset, known.refused) == ({"views": VIEWS}, 9, 1)


def test_a_dictionary_may_come_later_than_its_first_batch() -> None:
    dictionary = zstandard.train_dictionary(1_000, [bytes([n % 7, n % 11]) * 50 for n in range(2_000)])
    record = ("d", micro_batch(CLICKS, [VIEW], dictionary=dictionary))
    known, counts = documents(VIEWS), Counts()
    assert list(select([record], known, counts)) == []
    assert counts.unreadable_batches == 1
    known.take(topics.CONTRACTS, f"dictionary/{dictionary.dict_id()}", dictionary.as_bytes(), 1)
    assert len(list(select([record], known, counts))) == 1
