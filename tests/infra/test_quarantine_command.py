"""`fieldlake quarantine`: what it asks, what it decides, and what it says."""

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from contracts.contract import Checks, Contract
from contracts.errors import OperatorMustActError, RetrySafeError
from contracts.microbatch import Flag, parse
from infra.bundles.documents import read_contracts
from infra.cli import refused
from infra.cli.audit import TRAIL_FILE, Trail
from infra.cli.main import run
from infra.cli.refused import Filters, Plan

CLICKS = next(contract for contract in read_contracts() if contract.id == "clicks")
SEALED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def loose() -> Contract:
    fields = tuple(replace(f, checks=Checks()) if f.name == "event" else f for f in CLICKS.fields)
    return replace(CLICKS, version="9.0.0", fields=fields)


def entry(seq: int, **change: Any) -> dict[str, Any]:
    row = {
        "seq": seq, "user_id": "o'brien", "session_id": "s", "event": "e" * 300, "object": None, "dwell_s": None,
        "platform": None, "acquisition_channel": None, "occurred_at": 1_767_225_600_000_000,
    }  # fmt: skip
    return {
        "contract": "clicks", "refused_version": CLICKS.version, "origin": "web-1", "refused_epoch": 2,
        "refused_seq": seq, "refused_by": "lake", "rule": "event.max_length", "sealed_at": SEALED,
        "original": msgspec.json.encode(row | change).decode(),
    }  # fmt: skip


def test_what_fits_by_now_goes_back_in_its_own_name() -> None:
    asked: list[str] = []

    def ask(statement: str) -> list[dict[str, Any]]:
        asked.append(statement)
        return [entry(1), entry(2, user_id=None), entry(3)]

    filters = Filters("clicks", "event.max_length", "o'brien", "2026-01-01 00:00:00.0 UTC")
    plan = refused.plan(filters, {"clicks": (CLICKS, loose())}, ask, 10)
    assert (len(plan.ready), plan.still, plan.open_rows) == (2, {"user_id.required": 1}, 3)
    assert "origin = 'o''brien'" in asked[0]
    assert "t.seq IS NULL" in asked[0]
    assert "sealed_at >= TIMESTAMP '2026-01-01 00:00:00.0 UTC'" in asked[0]
    sent: list[tuple[str, bytes]] = []
    said: list[str] = []
    refused.send(plan, lambda batches: len([sent.append(one) for one in batches]), said.append)
    headers = [parse(batch)[0] for _, batch in sent]
    assert [(origin, h.epoch, h.first_seq) for (origin, _), h in zip(sent, headers, strict=True)] == [
        ("web-1", 2, 1),
        ("web-1", 2, 3),
    ]
    assert all(h.flags == Flag.REPLAYED and h.sealed_at_ms == SEALED.timestamp() * 1_000 for h in headers)
    assert said == ["2 of 2 rows are on the log"]
    assert "1  still refused: user_id.required" in refused.summary(plan, None, as_json=False)


def test_before_the_fix_nothing_goes_back() -> None:
    plan = refused.plan(Filters("clicks"), {"clicks": (CLICKS,)}, lambda _: [entry(1)], 10)
    assert (plan.ready, plan.still) == ((), {"event.max_length": 1})


def test_it_waits_until_the_rows_are_in_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"clicks": (CLICKS, loose())}
    plan = refused.plan(Filters("clicks"), versions, lambda _: [entry(1), entry(2)], 10)
    counts, said = [0, 1, 1, 2], list[str]()
    monkeypatch.setattr(refused, "LOOK_S", 0.0)
    back = refused.wait(plan, Filters("clicks"), versions, lambda _: [{"back": counts.pop(0)}], said.append)
    assert (back, counts) == (2, [])
    assert said == ["1 of 2 rows are in the table", "2 of 2 rows are in the table"]
    monkeypatch.setattr(refused, "STALL_S", 0.0)
    assert refused.wait(plan, Filters("clicks"), versions, lambda _: [{"back": 0}], said.append) == 0
    with pytest.raises(RetrySafeError, match="no row back twice"):
        refused.require_all(plan, 1)


def test_a_contract_that_nobody_published_is_named() -> None:
    with pytest.raises(OperatorMustActError, match="expected one of clicks"):
        refused.plan(Filters("visits"), {"clicks": (CLICKS,)}, lambda _: [], 10)
    with pytest.raises(OperatorMustActError, match="nothing was refused"):
        refused.shown("web-1", 1, 2, "clicks", {"clicks": (CLICKS,)}, lambda _: [], as_json=False)


def test_sums_are_asked_per_contract_that_is_known() -> None:
    asked: list[str] = []

    def ask(statement: str) -> list[dict[str, Any]]:
        asked.append(statement)
        return [{"contract": "clicks"}, {"contract": "gone"}] if "DISTINCT contract FROM" in statement else []

    assert refused.sums(Filters(), {"clicks": (CLICKS,)}, ask) == []
    assert len(asked) == 2
    assert refused.table([], as_json=True).strip() == "[]"


def test_the_trail_is_one_line_for_each_deed(tmp_path: Path) -> None:
    trail = Trail(tmp_path)
    trail.write("first", filters=Filters("clicks"), rows=3)
    trail.write("second", rows=0)
    lines = [msgspec.json.decode(line) for line in (tmp_path / TRAIL_FILE).read_text().splitlines()]
    assert [(line["what"], line["rows"]) for line in lines] == [("first", 3), ("second", 0)]
    assert lines[0]["filters"] == {"contract": "clicks"}
    assert (tmp_path / TRAIL_FILE).stat().st_mode & 0o777 == 0o600


def test_a_time_without_its_zone_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["quarantine", "list", "--since", "2026-01-01T00:00:00"]) == 2
    assert "with its zone" in capsys.readouterr().err


def test_a_summary_is_json_on_request() -> None:
    found = msgspec.json.decode(refused.summary(Plan((), {"x": 2}, 2), None, as_json=True))
    assert found == {"open": 2, "can_go_back": 0, "back": None, "still": {"x": 2}}
