"""Canned queries: what their documents may say and what may be bound."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trino.dbapi import Connection

from federation.errors import CannedQueryError
from federation.queries.canned import TEXT_CHARS_MAX, everyday_values, load, names, parse

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


def test_there_are_the_two_questions() -> None:
    assert names() == ("account_situation", "asset_history")


@pytest.mark.parametrize("name", names())
def test_every_document_parses_and_takes_everyday_values(name: str) -> None:
    query = load(name)
    bound = query.bind(everyday_values(query, "A-0001", "ACC-0001", NOW))
    assert len(bound) == query.sql.count("?") == len(query.order)
    assert "--" not in query.sql
    assert ":" not in query.sql


def test_a_parameter_used_twice_is_bound_twice() -> None:
    query = parse("q", "-- param a: string\n-- param b: integer\nSELECT :a, :b, :a")
    assert query.sql == "SELECT ?, ?, ?"
    assert query.bind({"a": "x", "b": 2}) == ("x", 2, "x")


def test_colons_in_text_and_comments_are_no_parameters() -> None:
    query = parse("q", "-- at 12:30 :a\n-- param a: string\nSELECT ':no', \"c:d\", 'it''s :b' /* :c */ WHERE x = :a")
    assert query.order == ("a",)
    assert query.sql == "SELECT ':no', \"c:d\", 'it''s :b'  WHERE x = ?"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT :a", "declares the parameters \\[\\] and uses \\['a'\\]"),
        ("-- param a: string\nSELECT 1", "declares the parameters \\['a'\\] and uses \\[\\]"),
        ("-- param a: blob\nSELECT :a", "expected a type of .*found 'blob'"),
    ],
)
def test_a_document_that_does_not_hold_together_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(CannedQueryError, match=complaint):
        parse("q", text)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "expected the parameters \\['a', 'n', 't'\\], found \\[\\]"),
        ({"a": 1, "n": 1, "t": NOW}, "parameter a: expected a value of type string, found int"),
        ({"a": "x", "n": True, "t": NOW}, "parameter n: expected a value of type integer, found bool"),
        ({"a": "x", "n": 1, "t": NOW.replace(tzinfo=None)}, "parameter t: expected a time with its offset"),
        ({"a": "x" * (TEXT_CHARS_MAX + 1), "n": 1, "t": NOW}, f"at most {TEXT_CHARS_MAX} characters"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, str | int | datetime], complaint: str) -> None:
    query = parse("q", "-- param a: string\n-- param n: integer\n-- param t: timestamptz\nSELECT :a, :n, :t")
    with pytest.raises(CannedQueryError, match=complaint):
        query.bind(values)


def test_an_unknown_query_says_which_there_are() -> None:
    with pytest.raises(CannedQueryError, match="expected one of account_situation, asset_history"):
        load("asset_future")


@given(st.text(max_size=64))
def test_no_text_leaves_its_quotes(text: str) -> None:
    """The client renders values as literals: whatever the text, the literal ends where it should."""
    literal = Connection(host="127.0.0.1").cursor()._format_prepared_param(text)
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "").count("'") == 0
    assert literal[1:-1].replace("''", "'") == text


def test_a_time_keeps_its_moment_whatever_its_offset() -> None:
    shanghai = timezone(timedelta(hours=8))
    literal = Connection(host="127.0.0.1").cursor()._format_prepared_param(NOW.astimezone(shanghai))
    assert literal == "TIMESTAMP '2026-11-22 16:00:00.000000 UTC+08:00'"
