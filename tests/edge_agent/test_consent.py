"""What a device does with events of people: step by step, on a full disk, over restarts, beyond its limits."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.core.arrays import ARRAYS
from edge_agent.core.consent import admission, waiting
from edge_agent.core.consent.person_keys import file_of
from edge_agent.core.consent.portions import Portion
from edge_agent.core.consent.register import REGISTER_FILE, Standing
from edge_agent.core.events import Reader
from edge_agent.core.sources.admissions import Admissions
from edge_agent.core.sources.offers import Offered, Outcome, Wish
from edge_agent.core.sources.producers import Producers, key_of
from edge_agent.core.spool.reserve import RESERVE_FILE
from edge_agent.operating import spool_check
from edge_agent.operating.spool_check import SpoolFound
from tests.edge_agent.consent_ground import PERSON, Ground, lines_of
from tests.edge_agent.consenting import (
    DEVICE_KEY,
    PSEUDONYMS,
    VISITS,
    ConsentWorld,
    assert_hidden,
    desk_of,
    key_files,
    line_of,
    register_of,
    visit,
)
from tests.edge_agent.simulated import DEVICE
from tests.edge_agent.worlds import Crash, MemoryDisk


def test_nothing_of_a_person_who_has_not_decided_is_on_the_disk() -> None:
    ground = Ground()
    settled = ground.take(lines_of(1, 2, 3), 0)
    assert (settled.accepted, settled.held, settled.held_from, settled.next_number) == (0, 3, 0, 3)
    assert ground.desk.portions() == ()
    assert ground.disk.files == {}
    assert PERSON not in str(ground.admissions.producers)


def test_a_grant_lets_all_go_in_order_and_asked_again_changes_nothing() -> None:
    ground = Ground()
    ground.take(lines_of(5, 1), 0)
    ground.take(lines_of(9), 2)
    decided = ground.decide(Wish.GRANT).decided
    (portion,) = ground.desk.portions()
    assert portion.lines == tuple(lines_of(5, 1, 9))
    assert portion.key in ground.keys
    assert decided == ground.decide(Wish.GRANT).decided
    assert ground.desk.portions() == ()
    assert ground.take(lines_of(5), 0).duplicate == 1


def test_a_refusal_is_durable_then_the_key_is_gone_then_memory_and_then_it_is_answered() -> None:
    ground = Ground()
    ground.decide(Wish.GRANT)
    (name,) = key_files(ground.disk)
    ground.take(lines_of(1))
    happened: list[str] = []
    disk, replaced, shredded = ground.disk, ground.disk.replace, ground.disk.shred

    def replace_(name: str, data: bytes) -> None:
        replaced(name, data)
        happened.append(f"{name}: {register_of(disk).standing(PSEUDONYMS.person(PERSON)).value}")

    def shred(name: str) -> None:
        shredded(name)
        happened.append(f"{name}: {'there' if name in disk.files else 'gone'}")

    disk.replace, disk.shred = replace_, shred  # type: ignore[method-assign]
    ground.desk.withdraw = lambda key: happened.append(f"withdrawn, {len(key_files(disk))} keys, {key in ground.keys}")
    happened.append(str(ground.decide(Wish.REFUSE).outcome))
    assert happened == [f"{REGISTER_FILE}: refused", f"{name}: gone", "withdrawn, 0 keys, False", "Outcome.TAKEN"]
    size_bytes = len(lines_of(1)[0])
    assert ground.desk.portions() == (Portion(VISITS.id, dropped=1, dropped_bytes=size_bytes, reason="refused"),)


@pytest.mark.parametrize("wish", [Wish.GRANT, Wish.REFUSE])
@pytest.mark.parametrize("steps", range(5))
def test_a_crash_between_every_two_steps_of_a_decision(wish: Wish, steps: int) -> None:
    ground = Ground()
    if wish is Wish.REFUSE:
        ground.decide(Wish.GRANT)
    before = register_of(ground.disk)
    ground.take(lines_of(1, 2), 0)
    ground.disk.crash_after = steps
    is_answered = True
    try:
        ground.decide(wish)
    except Crash:
        is_answered = False
    ground.disk.crash_after = None
    ground.disk.cut_power()
    after = Ground(ground.disk)
    found = after.desk.register
    person = PSEUDONYMS.person(PERSON)
    wanted = Standing.GRANTED if wish is Wish.GRANT else Standing.REFUSED
    assert found in (before, register_of(ground.disk))
    assert found.standing(person) is wanted or not is_answered
    # A key is there exactly when it is granted, whatever was half done.
    assert len(key_files(after.disk)) == (found.standing(person) is Standing.GRANTED)
    assert after.decide(wish).decided is not None
    assert after.desk.register.standing(person) is wanted


@pytest.mark.parametrize("steps", range(60))
def test_a_crash_at_each_step_of_a_whole_refusal_leaves_nothing_to_read(steps: int) -> None:
    world = ConsentWorld(3, lines_of(*range(20)) + lines_of(*range(20, 30), person="王"))
    world.tablet.wishes = [(PERSON, Wish.GRANT), ("王", Wish.GRANT)]
    world.faults = False
    world.offline = True
    agent = world.start()
    world.on_status = lambda report: agent.stop() if report.streams.get("visits") and not world.tablet.wishes else None
    agent.run()
    world.tablet.wishes = [(PERSON, Wish.REFUSE)]
    world.offline = False
    world.disk.crash_after = steps
    try:
        report = world.run_until_quiet()
    except Crash:
        world.crash()
        world.disk.crash_after = None
        report = world.run_until_quiet()
    world.scan()
    assert report.unexplained == 0
    assert report.streams["visits"].kept == len(world.lake.rows("visits"))
    others = [row["note"] for row in world.lake.rows("visits") if row["contact_id"] == "王"]
    assert others == [visit(seq, "王")["note"] for seq in range(20, 30)]
    (told,) = [row for row in world.lake.rows("consents") if row["standing"] == "refused"]
    assert told["person"] == PSEUDONYMS.person(PERSON)
    assert told["from_memory"] + told["from_spool"] + told["from_ring"] <= 20 + 20  # a sample of the rows is one too


def test_the_search_finds_a_person_whose_key_is_left() -> None:
    world = ConsentWorld(3, lines_of(*range(20)))
    world.tablet.wishes = [(PERSON, Wish.GRANT)]
    world.faults = False
    world.offline = True
    agent = world.start()
    world.on_status = lambda report: agent.stop() if report.streams.get("visits") else None
    agent.run()
    with pytest.raises(AssertionError, match=PERSON):
        assert_hidden(world.disk, [PERSON])
    for mark in (PERSON.encode("utf-16-le"), PERSON.encode().hex().encode(), b"bGluLQ"):
        with pytest.raises(AssertionError):
            assert_hidden(MemoryDisk({"a.log": b"\x01" + mark + b"\x02"}), [PERSON, "lin-"])


def test_a_look_at_the_spool_reads_what_is_granted_and_calls_no_refusal_rot(tmp_path: Path) -> None:
    world = ConsentWorld(3, lines_of(*range(20)))
    world.tablet.wishes = [(PERSON, Wish.GRANT)]
    world.faults, world.offline = False, True
    agent = world.start()
    world.on_status = lambda report: agent.stop() if report.streams.get("visits") else None
    agent.run()
    key_file = tmp_path / "device.key"
    key_file.write_bytes(DEVICE_KEY)

    def look() -> SpoolFound | None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, data in world.disk.files.items():
            (folder / name).write_bytes(data)
        return spool_check.look(folder, key_file, DEVICE)

    before = look()
    assert before is not None
    assert before.batches > 1
    desk, _ = desk_of(world.disk, world)
    desk.decide(PERSON, Wish.REFUSE, Admissions(Producers()))
    assert look() == before
    (tmp_path / "1" / file_of(max(register_of(world.disk).withdrawn))).unlink()
    broken = spool_check.look(tmp_path / "1", key_file, DEVICE)
    assert broken is not None
    assert broken.rotted == before.batches - 1  # all but the decision's row


def test_a_full_disk_makes_room_for_a_refusal() -> None:
    ground = Ground()
    ground.decide(Wish.GRANT)
    ground.disk.reserve(RESERVE_FILE, 10_000)
    ground.disk.capacity_bytes = sum(map(len, ground.disk.files.values()))
    assert ground.decide(Wish.REFUSE).outcome is Outcome.BUSY
    assert len(key_files(ground.disk)) == 1  # nothing is half done

    def make_room(_error: OSError) -> bool:
        ground.disk.delete(RESERVE_FILE)
        return True

    ground.desk.make_room = make_room
    assert ground.decide(Wish.REFUSE).outcome is Outcome.TAKEN
    assert key_files(ground.disk) == set()


def test_a_key_that_the_disk_keeps_is_destroyed_later_and_until_then_nobody_is_told() -> None:
    ground = Ground()
    ground.decide(Wish.GRANT)
    ground.disk.fail_after = 1  # the decision is written, the key's file is not
    assert ground.decide(Wish.REFUSE).outcome is Outcome.BUSY
    assert ground.desk.is_unfinished
    ground.disk.fail_after = None
    assert ground.decide(Wish.REFUSE).outcome is Outcome.TAKEN
    assert key_files(ground.disk) == set()


def test_beyond_the_limits_the_oldest_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVENTS_MAX", 5)
    ground = Ground()
    ground.take(lines_of(*range(4)), 0)
    settled = ground.take(lines_of(*range(4, 8)), 4)
    assert (settled.held, settled.held_from) == (4, 3)
    (portion,) = ground.desk.portions()
    assert (portion.dropped, portion.reason) == (3, "pending_overflow")
    ground.decide(Wish.GRANT)
    (portion,) = ground.desk.portions()
    assert portion.lines == tuple(lines_of(3, 4, 5, 6, 7))


def test_who_has_refused_and_who_names_nobody_leaves_a_count_only() -> None:
    ground = Ground()
    ground.decide(Wish.REFUSE)
    settled = ground.take([*lines_of(1), line_of(visit(2, "")), b"{not json", b'{"contact_id":7}'])
    assert (settled.accepted, settled.held) == (4, 0)
    portions = ground.desk.portions()
    assert sorted((portion.reason, portion.dropped, portion.key) for portion in portions) == [
        ("", 0, 0),
        ("no_person", 1, 0),
        ("refused", 1, 0),
    ]
    assert ground.disk.files.keys() == {REGISTER_FILE}


@given(st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=2)), st.booleans())
def test_an_event_that_names_nobody_fails_its_contract(value: Any, twice: bool) -> None:
    event = visit(1, PERSON, contact_id=value)
    line = line_of(event)
    if twice:
        line = line[:-1] + b',"contact_id":' + json.dumps(value).encode() + b"}"
    ground = Ground()
    ground.take([line])
    nobody = [one for portion in ground.desk.portions() for one in portion.lines]
    if nobody:
        assert len(Reader(VISITS, ARRAYS).read(0, nobody).refused) == 1


@settings(max_examples=150)
@given(st.data())
def test_every_event_is_taken_once_however_decisions_restarts_and_resends_fall(data: st.DataObject) -> None:
    total = 24
    people = data.draw(st.lists(st.sampled_from("abc"), min_size=total, max_size=total))
    lines = [line_of(visit(seq, people[seq])) for seq in range(total)]
    ground = Ground()
    durable: list[bytes] = []
    sent = 0

    def flush() -> None:
        for portion in ground.desk.portions():
            durable.extend(portion.lines)
        kept.append(ground.admissions.producers)

    kept = [Producers()]
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(["send", "send", "grant", "flush", "restart"])):
            case "send" if sent < total:
                count = data.draw(st.integers(1, total - sent))
                ground.take(lines[sent : sent + count], sent)
                sent += count
            case "grant":
                ground.decide(Wish.GRANT, data.draw(st.sampled_from("abc")))
            case "flush":
                flush()
            case _:
                ground = Ground(ground.disk)
                ground.admissions = Admissions(kept[-1])
                key = key_of(Offered("apps", 1, VISITS.id, (), PSEUDONYMS.producer("app")))
                held_from = admission.held_from(kept[-1], key)
                sent = held_from if held_from is not None else kept[-1].next_number(key) or 0
    ground.take(lines[sent:], sent)
    for person in "abc":
        ground.decide(Wish.GRANT, person)
    flush()
    assert sorted(durable) == sorted(lines)
    for person in "abc":
        own = [line for line in durable if json.loads(line)["contact_id"] == person]
        assert len(own) == people.count(person)


def test_a_producer_that_goes_on_gives_up_what_a_restart_took() -> None:
    ground = Ground()
    ground.decide(Wish.GRANT, "b")
    ground.take([*lines_of(0, 1), *lines_of(2, person="b")], 0)
    ground.desk.portions()
    again = Ground(ground.disk)
    again.admissions = Admissions(ground.admissions.producers)
    assert again.take([], 0).held_from == 0
    settled = again.take(lines_of(3), 3)
    assert (settled.held, settled.held_from, settled.next_number) == (1, 3, 4)
