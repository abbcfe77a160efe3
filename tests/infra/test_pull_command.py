"""`fieldlake pull`: what it asks, what it refuses, and what it says of the lake's answer."""

import datetime as dt
from typing import Any

import msgspec
import pytest

from contracts.errors import OperatorMustActError, RetrySafeError
from contracts.pulls import PullRequest
from infra.bundles.documents import read_contracts
from infra.cli.main import run
from infra.cli.pulled import Following, Told, rendered, rows_sql, tell_json

TELEMETRY = next(contract for contract in read_contracts() if contract.id == "telemetry")
REQUEST = PullRequest("0123456789abcdef", "telemetry", 0, 1, 1_000, 61_000)
ANSWER: dict[str, Any] = {
    "outcome": "answered", "reason": "", "examined": 900, "matched": 600, "sent": 600, "missing": 0,
    "missing_ranges": "[]", "held_since": None,
}  # fmt: skip


class Lake:
    """Answers the command's queries; each look at it finds the next state."""

    def __init__(self, *states: tuple[int, dict[str, Any] | None]) -> None:
        self._states = list(states)
        self.asked: list[str] = []
        self.now_s = 0.0

    def ask(self, statement: str) -> list[dict[str, Any]]:
        self.asked.append(statement)
        rows, answer = self._states[0]
        if "count(*)" not in statement:
            return [answer] if answer is not None else []
        if len(self._states) > 1:
            self._states.pop(0)
        return [{"events": rows}]

    def sleep(self, pause_s: float) -> None:
        self.now_s += pause_s


def follow(lake: Lake, online: bool | None = True) -> tuple[Told, list[str]]:
    said: list[str] = []
    following = Following("press-01", TELEMETRY, REQUEST, lake.ask)
    return following.wait(lambda: lake.now_s, lake.sleep, said.append, lambda: online), said


def test_it_waits_for_the_answer_and_for_all_of_its_rows() -> None:
    lake = Lake((0, None), (0, None), (512, None), (512, ANSWER), (600, ANSWER))
    told, said = follow(lake)
    assert (told.is_whole, told.rows, lake.now_s) == (True, 600, 4.0)
    assert said == [
        "press-01 is connected, no row yet",
        "512 rows are in the lake",
        "answered, 512 of 600 rows are in the lake",
    ]
    assert all("pull_id = '0123456789abcdef' AND origin = 'press-01'" in statement for statement in lake.asked)
    assert any("FROM lake_a.field.telemetry_pulled WHERE" in statement for statement in lake.asked)
    text = rendered(told, TELEMETRY)
    assert "600 rows of 600 that match, 900 events" in text
    assert "no longer" not in text
    assert text.endswith(rows_sql(TELEMETRY, REQUEST))


def test_what_is_not_there_any_more_is_said() -> None:
    since = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    gone = ANSWER | {"outcome": "limited", "missing": 7, "missing_ranges": "[[3,10]]", "held_since": since}
    told, _ = follow(Lake((600, gone)))
    text = rendered(told, TELEMETRY)
    assert "up to 7 events, numbers [[3,10]]" in text
    assert "older than 2026-03-01T00:00:00+00:00" in text
    assert "there may be more" in text
    assert msgspec.json.decode(tell_json(REQUEST, told, "SELECT 1"))["missing"] == 7


@pytest.mark.parametrize("outcome", ["refused", "expired", "withdrawn"])
def test_a_pull_that_was_not_carried_out_is_an_error(outcome: str) -> None:
    told, _ = follow(Lake((0, ANSWER | {"outcome": outcome, "reason": "no raw ring", "sent": 0})))
    assert rendered(told, TELEMETRY).endswith(outcome)
    with pytest.raises(OperatorMustActError, match="press-01: no raw ring"):
        told.require()


@pytest.mark.parametrize(("online", "said"), [(True, "is connected"), (False, "is away"), (None, "is away")])
def test_without_an_answer_it_gives_up_when_the_request_has_expired(online: bool | None, said: str) -> None:
    lake = Lake((0, None))
    with pytest.raises(RetrySafeError, match=said):
        follow(lake, online)
    assert 61 < lake.now_s < 200


def test_a_pull_that_was_carried_out_is_none() -> None:
    Told("press-01", REQUEST.id, 600, **ANSWER).require()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "2026-03-01T00:00:00", "--to", "2026-03-02T00:00:00Z"], "time with its zone"),
        (["--from", "yesterday", "--to", "2026-03-02T00:00:00Z"], "ISO 8601"),
        (["--from", "2026-03-02T00:00:00Z", "--to", "2026-03-01T00:00:00Z"], "ends after it begins"),
        (["--contract", "nothing"], "expected one of"),
        (["--contract", "ledger"], "event time"),
        (["--where", "f1 > 60"], "as JSON"),
        (["--where", "@/nowhere/at/all"], "readable file"),
        (["--where", '{"test":"compare","field":"f77","op":"gt","value":60}'], "f77"),
        (["--where", '{"test":"compare","field":"f1","op":"gt","value":"warm"}'], "whole number"),
        (["--rows-max", "100000000"], "rows_max"),
    ],
)
def test_what_no_device_could_answer_is_refused_at_once(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [] if "--from" in words else ["--from", "2026-03-01T00:00:00Z", "--to", "2026-03-01T01:00:00Z"]
    assert run(["pull", "press-01", *times, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_name_that_no_device_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pull", "a/b", "--from", "2026-03-01T00:00:00Z", "--to", "2026-03-01T01:00:00Z"]) == 2
    assert "expected letters" in capsys.readouterr().err
