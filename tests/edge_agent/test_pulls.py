"""Whole agents that are asked for events: each that is meant arrives once, whatever crashes, and the rest is said."""

import json
import random
from collections import Counter
from copy import deepcopy
from datetime import datetime
from itertools import pairwise

import pytest
from msgspec.structs import replace

from contracts import pulls as contract_pulls
from contracts.edge_rules import Compare, Condition
from edge_agent import pulls
from edge_agent.core.plan import Parts
from edge_agent.core.spool import spool
from edge_agent.core.spool.retention import Retention
from edge_agent.report import Report
from tests.edge_agent.plant import Json, rows_of
from tests.edge_agent.pulling import (
    FIRST_US,
    ID,
    NOW_MS,
    PROFILES,
    PULLED,
    STEP_US,
    PullWorld,
    pullable,
    request,
    some_lines,
    whole_lines,
)
from tests.edge_agent.simulated import World
from tests.edge_agent.worlds import Crash

WARM: Condition = Compare("f1", "gt", 50)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments, slices and batches so small that a short run has many of each."""
    monkeypatch.setattr(spool, "SEGMENT_BATCHES", 5)
    monkeypatch.setattr(pulls, "SLICE_ROWS", 50)
    monkeypatch.setattr(pulls, "BATCH_ROWS", 80)


def meant(world: World, first: int, end: int, when: Condition | None = None) -> list[int]:
    """Return the numbers of the events that are meant, by a plain look at every line."""
    found = []
    for seq, line in enumerate(world.lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        time = contract_us(event)
        fits = isinstance(event["f2"], int) and event["f9"] is not None and len(event["asset_id"]) <= 64
        if (
            fits
            and FIRST_US + first * STEP_US <= time < FIRST_US + end * STEP_US
            and (when is None or event["f1"] > 50)
        ):
            found.append(seq)
    return found


def contract_us(event: Json) -> int:
    return round(datetime.fromisoformat(event["occurred_at"]).timestamp() * 1_000_000)


def settled(world: PullWorld, agent_report: Report) -> None:
    assert agent_report.unexplained == 0
    rows = world.pulled()
    assert len({(row["pull_id"], row["source_seq"]) for row in rows}) == len(rows)
    for answer in world.answers():
        assert answer["sent"] == sum(row["pull_id"] == answer["pull_id"] for row in rows)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(8))
def test_an_answer_has_every_event_that_is_meant_once_and_says_what_became_of_it(seed: int, profile: str) -> None:
    rng = random.Random(seed)
    world = PullWorld(seed, some_lines(seed, 500), events_per_s=seed % 2 * 100.0)
    world.plan, world.faults = pullable(world.plan, PROFILES[profile]), False
    world.run()
    first = rng.randint(0, 300)
    end, when = first + rng.randint(1, 300), rng.choice([None, WARM])
    world.ask(request(first, end, when))
    settled(world, world.serve(1))
    (answer,) = world.answers()
    rows = world.pulled()
    assert [row["source_seq"] for row in rows] == meant(world, first, end, when)
    assert (answer["outcome"], answer["pull_id"], answer["missing"]) == ("answered", ID, 0)
    assert (answer["sent"], answer["matched"]) == (len(rows), len(rows))
    assert answer["examined"] == len(meant(world, first, end))
    assert answer["held_since"] is None
    kept = {row["seq"]: row for row in world.lake.rows("telemetry")}
    for row in rows:
        assert row["fate"] == ("kept" if row["source_seq"] in kept else "aggregated")
        line = json.loads(world.lines[row["source_seq"]])
        assert all(row[name] == line[name] for name in ("asset_id", "f1", "f9"))
        assert (row["model"] is not None) == (row["source_seq"] in kept)
    ledger = {row["stream"] for row in world.lake.rows("ledger")}
    assert ledger == {"telemetry"}  # an event that is pulled keeps the account that it has


@pytest.mark.parametrize("profile", PROFILES)
def test_without_windows_what_did_not_travel_was_dropped(profile: str) -> None:
    world = PullWorld(1, whole_lines(300))
    world.plan = replace(world.plan, streams=(replace(world.plan.streams[0], windows=(), windows_contracts=()),))
    world.plan, world.faults = pullable(world.plan, PROFILES[profile]), False
    world.run()
    world.ask(request())
    settled(world, world.serve(1))
    assert {row["fate"] for row in world.pulled()} <= {"kept", "dropped"}
    assert len(world.answers()) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_at_any_step_neither_loses_nor_doubles_a_row(seed: int) -> None:
    rng = random.Random(seed)
    world = PullWorld(seed, some_lines(seed, 400), events_per_s=seed % 2 * 200.0)
    world.run()
    other = replace(request(50, 120), id="1" * 16)
    when = rng.choice([None, WARM])
    world.ask(request(20, 350, when), other)
    for _ in range(rng.randint(1, 8)):
        world.disk.crash_after = rng.randint(0, 40)
        try:
            world.serve(2)
        except Crash:
            world.crash()
    world.disk.crash_after = None
    settled(world, world.serve(2))
    numbers = Counter(row["pull_id"] for row in world.pulled())
    assert sorted(answer["pull_id"] for answer in world.answers()) == [ID, other.id]
    assert numbers[other.id] == len(meant(world, 50, 120))
    assert [r["source_seq"] for r in world.pulled() if r["pull_id"] == ID] == meant(world, 20, 350, when)


def test_a_crash_between_every_two_steps_of_one_pull() -> None:
    before = PullWorld(7, whole_lines(240))
    before.faults = False
    before.run()
    before.ask(request(30, 230))
    crashed, steps = True, 0
    while crashed:
        world, crashed = deepcopy(before), False
        world.disk.crash_after = steps
        try:
            world.serve(1)
        except Crash:
            world.crash()
            crashed = True
        world.disk.crash_after = None
        settled(world, world.serve(1))
        assert [row["source_seq"] for row in world.pulled()] == list(range(30, 230)), steps
        assert len(world.answers()) == 1, steps
        steps += 1
    assert steps > 10


def test_what_goes_on_meanwhile_does_not_wait_for_a_pull() -> None:
    world = PullWorld(3, whole_lines(4_000), events_per_s=100.0)
    world.faults = False
    world.on_status = lambda _report: None if world.requests or world.now_s < 20 else world.ask(request())
    report = world.run()
    assert report.drained
    settled(world, report)
    (answer,) = world.answers()
    assert answer["outcome"] == "answered"
    assert 1_900 < answer["sent"] < 4_000  # what came after it began is not of the answer
    assert [row["source_seq"] for row in world.pulled()] == list(range(answer["sent"]))
    sealed = [header.sealed_at_ms for name, header, _ in world.lake.batches if name == "telemetry"]
    assert max(later - sooner for sooner, later in pairwise(sorted(sealed))) < 1_000
    order = [name for name, *_ in world.lake.batches]
    pulled = [place for place, name in enumerate(order) if name == PULLED.id]
    assert "telemetry" in order[pulled[0] : pulled[-1]]  # it passes what was sealed before it


def test_events_of_one_record_are_missing_when_it_has_rotted() -> None:
    world = PullWorld(5, whole_lines(400), events_per_s=100.0)
    world.faults = False
    world.run()
    opened = world.spool()
    segment = opened.segments[2]
    place = opened.places(segment.number, "telemetry")[1]
    block = next(one for one in place.blocks if one.ref.rows)
    name = f"segment-{segment.number:08d}.log"
    data = world.disk.files[name]
    at = block.place.offset + 5
    world.disk.files[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    world.ask(request())
    settled(world, world.serve(1))
    (answer,) = world.answers()
    assert (answer["missing"], answer["sent"]) == (block.ref.rows, 400 - block.ref.rows)
    assert json.loads(answer["missing_ranges"]) == [[block.place.first_seq, block.place.end_seq]]


def test_a_segment_that_is_gone_is_missing_and_so_is_one_of_another_time_not() -> None:
    for first, end in ((0, 400), (0, 60)):
        world = PullWorld(6, whole_lines(400), events_per_s=100.0)
        world.faults = False
        world.run()
        gone = world.spool().segments[3]
        del world.disk.files[f"segment-{gone.number:08d}.log"], world.disk.files[f"segment-{gone.number:08d}.idx"]
        span = gone.ranges["telemetry"][0]
        world.ask(request(first, end))
        settled(world, world.serve(1))
        (answer,) = world.answers()
        if span[0] >= end:
            assert (answer["missing"], answer["sent"]) == (0, end)
        else:
            assert json.loads(answer["missing_ranges"]) == [list(span)]
            assert answer["sent"] == 400 - answer["missing"] == 400 - (span[1] - span[0])


def test_what_is_older_than_the_ring_is_said() -> None:
    world = PullWorld(8, whole_lines(400), events_per_s=100.0)
    world.faults = False
    world.run()
    opened = world.spool()
    opened.retention = Retention(age_ms=10**12, size_bytes=opened.size_bytes // 2)
    opened.free({}, world.now_ms())
    oldest = opened.segments[0].ranges["telemetry"][0][0]
    assert oldest > 0
    world.ask(request(0, 400), replace(request(0, oldest), id="2" * 16), replace(request(oldest), id="3" * 16))
    settled(world, world.serve(3))
    by_id = {row["pull_id"]: row for row in world.answers()}
    whole, old, young = by_id[ID], by_id["2" * 16], by_id["3" * 16]
    assert (whole["sent"], whole["missing"]) == (400 - oldest, 0)
    assert whole["held_since"] == FIRST_US + oldest * STEP_US
    assert (old["sent"], old["held_since"]) == (0, whole["held_since"])
    assert (young["sent"], young["held_since"]) == (400 - oldest, None)


@pytest.mark.parametrize(
    ("changes", "outcome", "said"),
    [
        ({"contract": "clicks"}, "refused", "observes only telemetry"),
        ({"when": Compare("f1", "gt", "warm")}, "refused", "expected a whole number"),
        ({"asked_at_ms": 1, "expires_at_ms": 2}, "expired", ""),
        ({"rows_max": 10}, "limited", ""),
        ({"bytes_max": 1}, "limited", ""),
    ],
)
def test_what_cannot_be_answered_is(changes: Json, outcome: str, said: str) -> None:
    world = PullWorld(9, whole_lines(300))
    world.faults = False
    world.run()
    world.ask(request(**changes))
    settled(world, world.serve(1))
    (answer,) = world.answers()
    assert (answer["outcome"], said in answer["reason"]) == (outcome, True)
    limit = {"limited": 10 if "rows_max" in changes else answer["sent"]}.get(outcome, 0)
    assert answer["sent"] == limit
    assert answer["sent"] < 300
    world.serve(1)
    assert len(world.answers()) == 1  # it is not answered again


def test_a_device_without_a_ring_says_so() -> None:
    world = PullWorld(9, whole_lines(50))
    world.faults = world.stores = False
    world.ask(request())
    settled(world, world.serve(1))
    assert "no raw ring" in world.answers()[0]["reason"]


def test_a_request_that_is_taken_back_is_forgotten_and_may_be_asked_again() -> None:
    world = PullWorld(10, whole_lines(200))
    world.faults = False
    world.ask(request())
    world.serve(1)
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    assert not worker.is_busy
    worker.hear(ID, b"", NOW_MS)
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    assert worker.is_busy
    assert worker.advance(NOW_MS) is None
    worker.hear(ID, b"", NOW_MS)
    group = worker.advance(NOW_MS)
    assert group is not None
    assert [batch.contract for batch in group.batches] == ["pulls"]
    assert not worker.is_busy


def test_rubbish_is_refused_under_the_id_of_its_topic() -> None:
    world = PullWorld(11, whole_lines(20))
    world.faults = False
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    for number, document in enumerate((b"{", b'{"contract": "telemetry"}', contract_pulls.encode(request()))):
        worker.hear(f"{number:016x}", document, NOW_MS)
        group = worker.advance(NOW_MS)
        assert group is not None
        assert group.meta.pulls.answered[-1].id == f"{number:016x}"
        assert not worker.is_busy


def test_no_more_requests_wait_in_memory_than_it_says() -> None:
    world = PullWorld(12, whole_lines(20))
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    for number in range(20):
        worker.hear(f"{number:016x}", contract_pulls.encode(replace(request(), id=f"{number:016x}")), NOW_MS)
    assert len(worker._waiting) == pulls.WAITING_MAX


@pytest.mark.parametrize("pullable_after", [True, False])
def test_another_bundle_in_the_middle_of_a_pull_costs_and_doubles_nothing(pullable_after: bool) -> None:
    world = PullWorld(13, whole_lines(400))
    world.faults = False
    world.run()
    agent = world.start()
    intake, worker = agent._intake, agent._pulls
    assert worker is not None
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    found: list[int] = []
    groups = 0
    while worker.is_busy:
        group = worker.advance(NOW_MS)
        if group is not None:
            groups += 1
            batches = [batch.data for batch in group.batches if batch.contract == PULLED.id]
            found += [row["source_seq"] for data in batches for row in rows_of(PULLED, data)]
            if groups == 2:
                plan = intake.parts.plan
                stream = replace(plan.streams[0], pulled=PULLED if pullable_after else None)
                intake.adopt(Parts(replace(plan, streams=(stream,))), NOW_MS)
            agent._append(group)
        elif groups == 2 and found and world.rng.random() < 0.2:
            intake.adopt(Parts(intake.parts.plan), NOW_MS)
    assert found == list(range(400 if pullable_after else len(found)))
    assert 0 < len(found) <= 400
    assert intake.pulls.active is None
    assert [one.id for one in intake.pulls.answered] == [ID]


def test_windows_that_another_bundle_ends_go_with_the_next_rows_that_are_pulled() -> None:
    world = PullWorld(14, whole_lines(30))
    agent = world.start()
    intake, worker = agent._intake, agent._pulls
    assert worker is not None
    group = intake.take({"telemetry": world.lines}, NOW_MS)
    assert group is not None
    agent._append(group)
    plan = intake.parts.plan
    intake.adopt(Parts(replace(plan, streams=(replace(plan.streams[0], windows=(), windows_contracts=()),))), NOW_MS)
    worker.hear(ID, b"{", NOW_MS)
    answer = worker.advance(NOW_MS)
    assert answer is not None
    ended = sum(batch.span for batch in answer.batches if batch.contract == "telemetry_windows")
    assert answer.meta.next_seq["telemetry_windows"] == group.meta.next_seq["telemetry_windows"] + ended
    assert ended > 0


@pytest.mark.parametrize("seed", range(6))
def test_rubbish_in_the_middle_of_a_pull_does_not_let_a_restart_begin_it_again(seed: int) -> None:
    world = PullWorld(seed, whole_lines(400))
    world.faults = False
    world.run()
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    while (group := worker.advance(NOW_MS)) is None:
        continue
    agent._append(group)
    worker.hear("f" * 16, b"{", NOW_MS)
    refused = worker.advance(NOW_MS)
    assert refused is not None
    agent._append(refused)
    world.crash()
    world.ask(request())
    settled(world, world.serve(2))
    assert [row["source_seq"] for row in world.pulled()] == list(range(400))
    assert {row["outcome"] for row in world.answers()} == {"answered", "refused"}


def test_a_pull_that_is_taken_back_while_its_device_starts_ends_there() -> None:
    world = PullWorld(15, whole_lines(400))
    world.faults = False
    world.run()
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    while (group := worker.advance(NOW_MS)) is None:
        continue
    agent._append(group)
    later = world.start()._pulls
    assert later is not None
    assert later.is_busy
    later.hear(ID, b"", NOW_MS)
    assert later.advance(NOW_MS) is None
    answer = later.advance(NOW_MS)
    assert answer is not None
    assert answer.meta.pulls.active is None
    assert not later.is_busy


def test_what_was_read_and_is_not_durable_can_be_read_again() -> None:
    world = PullWorld(16, whole_lines(100))
    world.faults = False
    world.run()
    agent = world.start()
    worker = agent._pulls
    assert worker is not None
    worker.hear(ID, contract_pulls.encode(request()), NOW_MS)
    found: list[int] = []
    for turn in range(1_000):
        if not worker.is_busy:
            break
        if turn in (3, 4, 9):
            worker.start_over()
        group = worker.advance(NOW_MS)
        if group is not None:
            batches = [batch.data for batch in group.batches if batch.contract == PULLED.id]
            found += [row["source_seq"] for data in batches for row in rows_of(PULLED, data)]
    assert found == list(range(100))
