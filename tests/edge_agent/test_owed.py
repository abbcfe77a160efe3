"""Ledger entries of several flushes go out together, each event in one of them, whatever becomes of the process."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.core.accounts import Explained, merge
from edge_agent.core.intake import Intake
from edge_agent.core.plan import Plan
from edge_agent.core.spool.damage import Damage, damage_of
from edge_agent.core.spool.identity import open_spool
from edge_agent.core.spool.spool import Group
from edge_agent.core.uplink.owed import LEDGER_INTERVAL_S, OWED_ACCOUNTS_MAX
from tests.edge_agent.plant import CONTRACTS, SENSORS, Json, lines_of, reading, rows_of
from tests.edge_agent.simulated import WANTED, plan_of
from tests.edge_agent.worlds import MemoryDisk

INTERVAL_MS = int(LEDGER_INTERVAL_S * 1_000)


def plan() -> Plan:
    return plan_of(epoch=100)


def lines(first: int, count: int, **changes: Any) -> list[bytes]:
    return lines_of([reading(seq, **changes) for seq in range(first, first + count)])


def take(intake: Intake, read: list[bytes], now_ms: int, *, final: bool = False) -> Group | None:
    return intake.take({"telemetry": read}, now_ms, final=("telemetry",) if final else (), ends=final)


def taken(intake: Intake, read: list[bytes], now_ms: int, *, final: bool = False) -> Group:
    group = take(intake, read, now_ms, final=final)
    assert group is not None
    return group


def refill(intake: Intake, groups: list[Group]) -> None:
    """Fill the open windows from what the spool holds."""
    spool = open_spool(MemoryDisk(), WANTED)
    for group in groups:
        spool.append(group)
    for replayed in spool.replay(intake.resume_seqs()):
        intake.refill(replayed)


def entries(*groups: Group) -> list[Json]:
    """Return the rows of their ledger batches."""
    batches = [batch for group in groups for batch in group.batches if batch.contract == "ledger"]
    return [row for batch in batches for row in rows_of(CONTRACTS["ledger"], batch.data)]


def said(rows: list[Json]) -> dict[tuple[str, str], int]:
    """Return the sums by fate and reason."""
    sums: dict[tuple[str, str], int] = {}
    for row in rows:
        sums[row["fate"], row["reason"]] = sums.get((row["fate"], row["reason"]), 0) + row["count"]
    return {key: count for key, count in sums.items() if count}


def counted(*groups: Group) -> dict[tuple[str, str], int]:
    """Return what the records count of the source, by fate and reason."""
    counts = merge(count for group in groups for count in group.meta.counts)
    return {(c.fate, c.reason): c.count for c in counts if c.stream == "telemetry" and c.count}


def test_flushes_are_counted_at_once_and_their_entries_sealed_together() -> None:
    intake = Intake(plan(), None)
    groups = [taken(intake, lines(at * 10, 10), at * 200) for at in range(3)]
    bad = taken(intake, lines(30, 5, f3="warm"), 600)
    assert entries(*groups, bad) == []
    assert [sum(c.count for c in g.meta.counts if c.stream == "telemetry") for g in (*groups, bad)] == [10, 10, 10, 5]
    assert [(owed.first_seq, owed.end_seq) for owed in bad.meta.owed] == [(0, 35)]
    last = taken(intake, lines(35, 10), INTERVAL_MS)
    rows = entries(last)
    assert {(row["first_seq"], row["span"]) for row in rows} == {(0, 45)}
    assert said(rows) == counted(*groups, bad, last)
    assert said(rows)["dropped", "f3.type"] == 5
    assert len(rows) == 3
    assert (last.meta.owed, last.meta.explained) == ((), (Explained(0, 45, last.meta.explained[0].counts),))
    following = taken(intake, lines(45, 10), INTERVAL_MS + 200)
    assert entries(following) == []  # its age begins with it
    assert following.meta.owed[0].first_seq == 45


def test_a_source_without_lines_gets_its_entries_sealed_when_they_are_due() -> None:
    intake = Intake(plan(), None)
    first = taken(intake, lines(0, 10), 1_000)
    assert take(intake, [], 1_000 + INTERVAL_MS - 1) is None
    idle = taken(intake, [], 1_000 + INTERVAL_MS)
    assert [batch.contract for batch in idle.batches] == ["ledger"]
    assert said(entries(idle)) == counted(first)
    assert counted(idle) == {}
    assert take(intake, [], 1_000 + 3 * INTERVAL_MS) is None


def test_the_end_of_the_source_seals_them() -> None:
    intake = Intake(plan(), None)
    first = taken(intake, lines(0, 10), 0)
    last = taken(intake, [], 1, final=True)
    assert said(entries(last)) == counted(first)
    assert last.meta.owed == ()
    assert take(intake, [], 2, final=True) is None


def test_entries_of_many_accounts_are_not_collected_further() -> None:
    intake = Intake(plan(), None)
    kinds: list[Json] = [{name: value} for value in ("warm", None) for name in SENSORS]
    assert len(kinds) > OWED_ACCOUNTS_MAX
    groups = [taken(intake, lines(at, 1, **changes), 0) for at, changes in enumerate(kinds)]
    assert [len(entries(group)) for group in groups] == [
        OWED_ACCOUNTS_MAX if at == OWED_ACCOUNTS_MAX - 1 else 0 for at in range(len(kinds))
    ]
    assert all(sum(len(owed.counts) for owed in group.meta.owed) < OWED_ACCOUNTS_MAX for group in groups)
    packed = max(len(msgspec.msgpack.encode(group.meta.owed)) for group in groups)
    assert packed < OWED_ACCOUNTS_MAX * 60


def test_a_clock_that_was_set_back_keeps_nothing_back() -> None:
    intake = Intake(plan(), None)
    first = taken(intake, lines(0, 10), 10**12)
    assert said(entries(taken(intake, [], 1_000))) == counted(first)


def test_a_restart_owes_what_the_newest_record_owed_and_its_age_starts_anew() -> None:
    before = taken(Intake(plan(), None), lines(0, 10), 0)
    intake = Intake(plan(), before.meta)
    refill(intake, [before])
    after = taken(intake, lines(10, 10), 10**9)
    assert entries(after) == []
    last = taken(intake, [], 10**9 + INTERVAL_MS)
    assert {(row["first_seq"], row["span"]) for row in entries(last)} == {(0, 20)}
    assert said(entries(last)) == counted(before, after)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3_000), st.sampled_from(["", "warm", "killed"])), max_size=25)
)
def test_whatever_the_flushes_and_restarts_every_event_is_in_one_range(steps: list[tuple[int, int, str]]) -> None:
    intake, groups, now_ms = Intake(plan(), None), list[Group](), 0
    for count, wait_ms, what in steps:
        now_ms += wait_ms
        read = lines(intake.next_seq("telemetry"), count, **({"f1": "warm"} if what == "warm" else {}))
        if what == "killed":  # before the group was durable: it never was
            take(intake, read, now_ms)
            intake = Intake(plan(), groups[-1].meta if groups else None)
            refill(intake, groups)
            assert intake.is_refilled()
        elif (group := take(intake, read, now_ms)) is not None:
            groups.append(group)
    if (group := take(intake, [], now_ms, final=True)) is not None:
        groups.append(group)
    rows = entries(*groups)
    assert said(rows) == counted(*groups)
    at = 0
    for first, span in sorted({(row["first_seq"], row["span"]) for row in rows}):
        assert first == at
        assert sum(row["count"] for row in rows if row["first_seq"] == first) == span
        at += span
    assert at == intake.next_seq("telemetry")
    assert [row["seq"] for row in rows] == list(range(len(rows)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("victim", range(6))
def test_whichever_batch_rots_its_events_are_said_once(victim: int, seed: int) -> None:
    """Six records: a ledger batch in the third, alone in the fifth; every batch of the victim is gone."""
    rng = random.Random(seed)
    intake = Intake(plan(), None)
    times = [0, 200, INTERVAL_MS, INTERVAL_MS + 200, 2 * INTERVAL_MS + 200, 2 * INTERVAL_MS + 400]
    records: list[Group] = []
    for place, now_ms in enumerate(times):
        read = (
            []
            if place == 4
            else lines(intake.next_seq("telemetry"), rng.randint(1, 9), **rng.choice([{}, {"f1": "warm"}]))
        )
        records.append(taken(intake, read, now_ms))
    assert [bool(record.meta.explained) for record in records] == [False, False, True, False, True, False]
    gone = records[victim]
    settled = intake.settle(tuple(damage_of(ref, gone.meta) for ref in gone.meta.batches), 10**9)
    final = take(intake, [], 10**9 + INTERVAL_MS, final=True)
    groups = [record for record in records if record is not gone] + [settled] + ([final] if final else [])
    rows = [row for row in entries(*groups) if row["stream"] == "telemetry"]
    lost = sum(ref.rows for ref in gone.meta.batches if ref.contract == "telemetry")
    assert sum(row["count"] for row in rows) == intake.next_seq("telemetry")
    assert said(rows).get(("lost", "spool_corrupt"), 0) == lost
    assert said(rows) == counted(*records, settled, *([final] if final else []))
    spans = {(b.contract, b.first_seq, b.span) for b in gone.batches}
    assert spans <= {(b.contract, b.first_seq, b.span) for b in settled.batches if b.rows == 0}
    assert {(s.contract, s.first_seq, s.end_seq - s.first_seq) for s in settled.meta.settled} == spans


def test_a_range_of_unknown_rows_is_called_lost_whole_and_the_ledger_shows_it() -> None:
    intake = Intake(plan(), None)
    taken(intake, lines(0, 10), 0)
    settled = intake.settle((Damage("telemetry", 0, 10, None),), 1)
    final = taken(intake, [], INTERVAL_MS, final=True)
    rows = [row for row in entries(settled, final) if row["stream"] == "telemetry"]
    assert said(rows)["lost", "spool_corrupt"] == 10
    assert sum(row["count"] for row in rows) == 20  # more than was observed: nobody can overlook it
