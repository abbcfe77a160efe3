"""The protocol of a batch: a crash between any two steps, lost answers, outages, another process, bad messages."""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.crm_change import CrmMessage, Kind, encode
from contracts.errors import RetrySafeError
from lakehouse.errors import FencedError
from lakehouse.mirror.follower import CHUNK_MESSAGES
from lakehouse.mirror.ports import Step
from lakehouse.mirror.status import MirrorStatus
from tests.lakehouse.mirror.memory import MemoryMirror, Topic
from tests.lakehouse.mirror.messages import change, expected, histories, key, seen
from tests.lakehouse.mirror.world import CrashError, DieAt, drain, mirror_over, shuffled_in

HISTORY = [
    change("1", Kind.CREATED, 1, fields={"Name": "华东精工"}),
    change("2", Kind.CREATED, 2, fields={"Name": "b"}, object="Unknown__c"),
    change("1", Kind.UPDATED, 3, fields={"Phone": "1"}),
    change("2", Kind.DELETED, 4, object="Unknown__c"),
    change("1", Kind.UPDATED, 5, fields={"Phone": None}),
]


@given(histories(), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_order_on_the_log_gives_the_same_tables(history: list[CrmMessage], batch: int, rng: Random) -> None:
    topic, store = Topic(), MemoryMirror()
    shuffled_in(topic, history, rng)
    drain(mirror_over(topic, store, batch_max=batch))
    assert {key: seen(record) for key, record in store.records().items()} == expected(history)


@pytest.mark.parametrize("step", Step)
def test_a_crash_after_any_step_loses_and_doubles_nothing(step: Step) -> None:
    topic, store = Topic(), MemoryMirror()
    topic.put(b"not a change")
    for one in HISTORY:
        topic.put(one)
    for times in (1, 2):
        with pytest.raises(CrashError):
            drain(mirror_over(topic, store, DieAt(step, times), batch_max=2))
    # Each life ends within its n-th batch of two; only the last step is behind the commit.
    assert sum(store.committed.positions("topic-1").values()) == (6 if step is Step.COMMITTED else 2)
    drain(mirror_over(topic, store, batch_max=2))
    assert seen(store.records()[key("1")]).fields == {"Name": "华东精工"}
    assert store.records()[key("2", object_name="Unknown__c")].deleted_us == 4
    assert store.committed.positions("topic-1") == {p: len(some) for p, some in enumerate(topic.partitions) if some}
    assert {letter.source for letter in topic.letters} == {"fieldlake.crm.changes/0/0"}


def test_an_answer_that_never_came_is_settled_by_the_positions() -> None:
    topic, store = Topic(), MemoryMirror()
    mirror = mirror_over(topic, store)
    mirror.recover()
    for one in HISTORY:
        topic.put(one, 0)
    store.lose_answer = True
    with pytest.raises(RetrySafeError):
        mirror.step()
    landed = store.committed.positions("topic-1")
    assert landed == {0: 4}
    drain(mirror)
    assert store.committed.positions("topic-1") == {0: 5}


def test_a_second_mirror_is_found_out_before_it_writes() -> None:
    topic, store = Topic(), MemoryMirror()
    first, second = mirror_over(topic, store), mirror_over(topic, store)
    first.recover()
    second.recover()
    topic.put(HISTORY[0], 0)
    assert first.step()
    with pytest.raises(FencedError, match="another mirror process"):
        second.step()
    assert store.committed.positions("topic-1") == {0: 1}


def test_what_cannot_be_followed_and_what_the_database_refuses_goes_to_the_dead_letters_alone() -> None:
    topic, store = Topic(), MemoryMirror()
    bad = encode(HISTORY[0]).replace("华东精工".encode(), b"x\\ud800\\udc00")
    messages = [b"{}", b"\xff", encode(HISTORY[1]), bad, encode(HISTORY[4])]
    for message in messages:
        topic.put(message)
    mirror = mirror_over(topic, store, batch_max=10)
    drain(mirror)
    reasons = [(letter.source.rpartition("/")[2], letter.reason) for letter in topic.letters]
    assert reasons == [("0", "malformed"), ("1", "malformed"), ("3", "refused_by_database")]
    assert [letter.original for letter in topic.letters] == [b"{}", b"\xff", bad]
    assert store.records().keys() == {key("1"), key("2", object_name="Unknown__c")}


def test_a_topic_made_anew_is_read_from_its_start() -> None:
    topic, store = Topic(), MemoryMirror()
    topic.put(HISTORY[0], 0)
    drain(mirror_over(topic, store))
    topic.identity, topic.partitions = "topic-2", [[encode(HISTORY[2])], [], []]
    drain(mirror_over(topic, store))
    assert seen(store.records()[key("1")]).fields == {"Name": "华东精工", "Phone": "1"}


def test_a_batch_is_bounded_by_its_bytes_too() -> None:
    topic, store, status = Topic(), MemoryMirror(), MirrorStatus(pid=1)
    for number in range(CHUNK_MESSAGES + 50):
        topic.put(change("1", Kind.UPDATED, number, fields={"Text": "x" * 400_000}), 0)
    drain(mirror_over(topic, store, batch_max=10_000, status=status))
    assert status.batches == 2
    assert store.committed.positions("topic-1") == {0: CHUNK_MESSAGES + 50}


def test_what_the_log_no_longer_has_is_said() -> None:
    topic, store, status = Topic(), MemoryMirror(), MirrorStatus(pid=1)
    for one in HISTORY:
        topic.put(one, 1)
    mirror = mirror_over(topic, store, batch_max=2)
    mirror.recover()
    assert mirror.step()
    assert store.committed.positions("topic-1") == {1: 2}
    topic.begin = 3
    drain(mirror_over(topic, store, status=status))
    assert "{1: (2, 3)}" in status.last_error
    assert store.committed.positions("topic-1") == {1: 5}
