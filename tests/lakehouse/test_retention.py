"""Rows whose retention is over go, with a line that says so; all others stay."""

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.history import ensure_history
from lakehouse.maintenance import merging
from lakehouse.maintenance.compaction import compact
from lakehouse.maintenance.keeper import RETENTION_EVERY_S, Keeper
from lakehouse.maintenance.removal import remove_rows
from lakehouse.maintenance.removals import removals_table
from lakehouse.maintenance.replacing import Point
from lakehouse.maintenance.retention import DAY_MS, limit_us, rule_of
from lakehouse.status import MaintenanceStatus
from tests.lakehouse.frames import CONTRACTS, START_US, clicks
from tests.lakehouse.memory import ManualClock
from tests.lakehouse.shelf import CLICKS, Shelf

DAY_US = DAY_MS * 1_000
DAYS = CLICKS.retention_days


def aged(first: int, ages_days: list[int]) -> list[dict[str, Any]]:
    """Clicks of so many days before START_US."""
    rows = clicks(range(first, first + len(ages_days)))
    return [row | {"occurred_at": START_US - age * DAY_US} for row, age in zip(rows, ages_days, strict=True)]


@pytest.fixture(params=["tail", "history"])
def shelf(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A file of old rows, one of both and one of new ones, in either part."""
    made = Shelf(tmp_path)
    made.commit(aged(0, [DAYS + 2] * 4))
    made.commit(aged(4, [DAYS + 2, 0, DAYS + 40, 1]))
    made.commit(aged(8, [0, 1, 2, 3]))
    if request.param == "history":
        monkeypatch.setattr(merging, "HISTORY_BYTES_MIN", 1)
        monkeypatch.setattr(merging, "MERGE_FILES_MIN", 3)
        ensure_history(made.keeper)
        assert compact(made.keeper, quiet=True).files == 3
    return made


KEPT = [5, 7, 8, 9, 10, 11]


def test_whole_files_go_unread_and_others_are_written_again_without_the_old_rows(shelf: Shelf) -> None:
    specs = {spec for spec, _ in shelf.files()}
    rule = rule_of(shelf.load(), START_US // 1_000)
    assert rule is not None
    done = remove_rows(shelf.keeper, rule, traceless=False)
    assert done.rows == 6
    assert shelf.seqs() == KEPT
    assert {spec for spec, _ in shelf.files()} == specs
    if specs == {0}:
        assert (done.files, done.rewritten) == (2, 1)
    assert remove_rows(shelf.keeper, rule, traceless=False).files == 0


def test_a_merge_beside_it_makes_it_look_again(shelf: Shelf) -> None:
    rule = rule_of(shelf.load(), START_US // 1_000)
    assert rule is not None
    shelf.commit(aged(20, [DAYS + 9, 0]))
    beside: list[int] = []

    def fault(point: Point) -> None:
        if point is Point.LIST_WRITTEN and not beside:
            beside.append(compact(shelf.load(), quiet=True).files)

    done = remove_rows(shelf.keeper, rule, traceless=False, fault=fault)
    assert done.rows == 7
    assert done.conflicts == (1 if beside[0] else 0)
    assert shelf.seqs() == [*KEPT, 21]


def test_rows_without_a_time_go_by_when_they_were_sealed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, CONTRACTS["ledger"])
    entry = {"stream": "clicks", "stream_epoch": 1, "first_seq": 0, "span": 1, "fate": "kept", "count": 1}
    rows = [entry | {"seq": n, "rule": "", "reason": "", "sealed_at": START_US - n * DAY_US} for n in (0, 1, 500)]
    shelf.commit(rows)
    rule = rule_of(shelf.load(), START_US // 1_000)
    assert rule is not None
    assert remove_rows(shelf.keeper, rule, traceless=False).rows == 1
    assert shelf.seqs() == [0, 1]


def test_the_process_does_it_an_hour_after_its_start_and_says_so(shelf: Shelf) -> None:
    clock, status = ManualClock(START_US // 1_000), MaintenanceStatus(pid=0)
    keeper = Keeper((shelf.catalog,), clock, status)
    keeper.step(threading.Event())
    assert status.rows_ended == {}
    clock.advance(RETENTION_EVERY_S)
    keeper.step(threading.Event())
    assert status.last_error == ""
    assert status.rows_ended == {"lake_b.behaviour.clicks": 6}
    assert shelf.seqs() == KEPT
    assert status.tables["lake_b.behaviour.clicks"].snapshots > 0
    (row,) = removals_table(shelf.catalog).scan().to_arrow().to_pylist()
    assert (row["reason"], row["table"], row["rows"], row["subject"]) == (
        "retention", "lake_b.behaviour.clicks", 6, None,
    )  # fmt: skip


@given(st.integers(0, 4_000_000_000_000), st.integers(1, 4_000))
def test_the_limit_is_whole_days_ago_and_never_later_than_the_contract_says(now_ms: int, days: int) -> None:
    limit = limit_us(now_ms, days)
    assert limit % DAY_US == 0
    assert now_ms * 1_000 - DAY_US < limit + days * DAY_US <= now_ms * 1_000
