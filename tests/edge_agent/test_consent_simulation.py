"""Whole agents with people who decide, change their minds, and crashes at every step, from one seed each."""

import json
import random
from collections import Counter
from datetime import datetime

import pytest

from contracts.edge_rules import Compare, Deduplicate, Drop, EdgeRule
from edge_agent import courier
from edge_agent.core.sources.offers import Wish
from edge_agent.core.spool import settling, spool
from edge_agent.core.spool.retention import Retention
from edge_agent.report import Report
from tests.edge_agent.consenting import PSEUDONYMS, ConsentWorld, key_files, line_of, register_of, visit

PERSONS = tuple(f"客户-{number}-Zoë" for number in range(6))
UNDECIDED = PERSONS[5]
RULES = (
    EdgeRule("short", 1, Drop(), Compare("duration_s", "lt", 2.0)),
    EdgeRule("again", 1, Deduplicate(("contact_id", "note"), 60_000)),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments so small that a run fills many; a lake that says within seconds what it holds."""
    monkeypatch.setattr(spool, "SEGMENT_BATCHES", 12)
    monkeypatch.setattr(courier, "LOST_SETTLE_S", 8.0)
    monkeypatch.setattr(settling, "LOST_SETTLE_S", 8.0)


def world_of(seed: int) -> ConsentWorld:
    rng = random.Random(seed)
    lines = []
    for seq in range(rng.randint(60, 150)):
        event = visit(seq, rng.choice(PERSONS))
        if rng.random() < 0.04:
            event |= {"duration_s": -1}
        lines.append(line_of(event))
    world = ConsentWorld(seed, lines, RULES if seed % 2 else ())
    if seed % 3:
        world.retention = Retention(age_ms=10**9, size_bytes=10**9)
    for person in PERSONS[:5]:
        wish = rng.choice([Wish.GRANT, Wish.GRANT, Wish.REFUSE])
        for _ in range(rng.randint(1, 4)):
            world.tablet.wishes.append((person, wish))
            wish = Wish.REFUSE if wish is Wish.GRANT else Wish.GRANT
    rng.shuffle(world.tablet.wishes)
    world.tablet.wishes.insert(0, (UNDECIDED, Wish.SHOW))
    return world


def check(world: ConsentWorld, report: Report, seed: int) -> None:
    visits = report.streams["visits"]
    assert report.unexplained == 0, f"seed={seed} {visits}"
    for name, sums in report.streams.items():
        whole = ((0, sums.observed),) if sums.observed else ()
        assert world.lake.committed(name, report.epoch) == whole, f"seed={seed} {name}"
    rows = world.lake.rows("visits")
    assert visits.kept == len(rows), f"seed={seed}"
    entries = [row for row in world.lake.rows("ledger") if row["stream"] == "visits"]
    assert sum(row["count"] for row in entries) == visits.observed, f"seed={seed}"
    fates = Counter[str]()
    for row in entries:
        fates[row["fate"], row["reason"]] += row["count"]
    assert fates["kept", ""] == len(rows), f"seed={seed}"
    assert fates["lost", "spool_corrupt"] == 0, f"seed={seed}"
    sent = Counter(json.loads(line)["note"] for line in world.tablet.lines)
    assert not Counter(row["note"] for row in rows) - sent, f"seed={seed}: doubled"
    world.scan()
    assert len(key_files(world.disk)) == len(world.granted), f"seed={seed}"
    check_persons(world, seed)
    check_decisions(world, seed)
    assert all(row["original"] == "" for row in world.lake.rows("quarantine")), f"seed={seed}"


def check_persons(world: ConsentWorld, seed: int) -> None:
    """Who only ever granted has all in the lake, once, in order and with its times; who never did, nothing."""
    rows = world.lake.rows("visits")
    wishes = {person: [wish for who, wish, _ in world.tablet.answered if who == person] for person in PERSONS}
    for person in PERSONS:
        own = [row for row in rows if row["contact_id"] == person]
        sent = [json.loads(line) for line in world.tablet.lines]
        valid = [e for e in sent if e["contact_id"] == person and e["duration_s"] >= (2 if seed % 2 else 0)]
        if Wish.GRANT not in wishes[person]:
            assert own == [], f"seed={seed} {person}"
        elif Wish.REFUSE not in wishes[person]:
            assert [row["note"] for row in own] == [e["note"] for e in valid], f"seed={seed} {person}"
            times = [datetime.fromisoformat(e["occurred_at"]).timestamp() for e in valid]
            assert [row["occurred_at"] / 1e6 for row in own] == times, f"seed={seed} {person}"


def check_decisions(world: ConsentWorld, seed: int) -> None:
    told = world.lake.rows("consents")
    numbers = [row["decision"] for row in told if row["stream"] == "visits"]
    assert numbers == list(range(1, register_of(world.disk).next_number)), f"seed={seed}"
    assert register_of(world.disk).open == ()
    for person in PERSONS[:5]:
        standings = [row["standing"] for row in told if row["person"] == PSEUDONYMS.person(person)]
        assert standings, f"seed={seed} {person}"


@pytest.mark.parametrize("seed", range(3))
def test_people_decide_and_nothing_crashes(seed: int) -> None:
    world = world_of(seed)
    check(world, world.run_until_quiet(), seed)
    assert world.scans > 1


@pytest.mark.parametrize("seed", range(9))
def test_people_decide_whatever_crashes(seed: int) -> None:
    world = world_of(seed)
    check(world, world.run_with_crashes(random.Random(seed).randint(1, 10), (0, 160)), seed)
