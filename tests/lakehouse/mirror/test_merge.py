"""Any order, any grouping and any repetition of changes gives what applying them in the order of time gives."""

import itertools
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from contracts.crm_change import Cause, CrmChange, CrmMessage, Kind, Snapshot
from lakehouse.mirror.merge import merge, swept
from lakehouse.mirror.model import UNKNOWN
from tests.lakehouse.mirror.messages import RECORDS, change, changes, expected, histories, key, merged, seen


@given(histories(), st.randoms(use_true_random=False))
def test_changes_in_any_order_and_number_give_the_same_record(history: list[CrmMessage], rng: Random) -> None:
    told = [message for message in history if isinstance(message, CrmChange)]
    alone = expected(told)  # snapshots that never end sweep nothing
    for record in {one.record for one in told}:
        own = [one for one in told if one.record == record]
        shuffled = own + [one for one in own if rng.random() < 0.4]
        rng.shuffle(shuffled)
        state = UNKNOWN
        while shuffled:
            count = rng.randint(1, len(shuffled))
            state, shuffled = merge(state, shuffled[:count]), shuffled[count:]
        assert seen(state) == alone[key(record)]
        assert state == merged(own)


@given(st.lists(changes(7), max_size=4))
def test_changes_at_one_version_give_one_record_whatever_their_order(same: list[CrmChange]) -> None:
    own = [one for one in same if one.record == RECORDS[0]]
    first, *others = (merged(order) for order in itertools.permutations(own))
    assert all(other == first for other in others)


def test_an_update_never_brings_a_deleted_record_back() -> None:
    history = [
        change("1", Kind.CREATED, 1, fields={"Name": "a"}),
        change("1", Kind.DELETED, 5),
        change("1", Kind.UPDATED, 6, fields={"Name": "b"}),
    ]
    for order in itertools.permutations(history):
        assert merged(order).deleted_us == 5
    assert merged([*history, change("1", Kind.UNDELETED, 7)]).deleted_us is None


def test_a_late_older_value_does_not_come_back_and_its_other_fields_do_not_get_lost() -> None:
    newer = change("1", Kind.UPDATED, 5, fields={"Phone": "2"})
    older = change("1", Kind.UPDATED, 4, fields={"Phone": "1", "Email": "a@b"})
    assert seen(merged([newer, older])).fields == {"Phone": "2", "Email": "a@b"}


def test_a_gap_makes_a_record_stale_until_it_is_read_whole() -> None:
    gap = change("1", Kind.GAP, 5)
    part = change("1", Kind.UPDATED, 6, fields={"Name": "x"})
    assert merged([gap, part]).stale_us == 5
    assert merged([change("1", Kind.UPDATED, 6, full=True), gap]).stale_us is None
    assert merged([change("1", Kind.UPDATED, 4, full=True), gap]).stale_us == 5


def test_a_sweep_spares_what_was_seen_after_the_snapshot_began() -> None:
    before, after = change("1", Kind.CREATED, 4), change("1", Kind.UPDATED, 9)
    assert swept(merged([before]), 5).deleted_us == 5
    assert swept(merged([before, after]), 5).deleted_us is None
    assert merge(swept(merged([before]), 5), [after]).deleted_us is None
    held = change("1", Kind.UPDATED, 1, full=True, snapshot=Snapshot("s", 8))
    assert merge(swept(merged([before]), 5), [held]).deleted_us is None


def test_the_cause_is_that_of_the_newest_change() -> None:
    first, second = Cause("ui", "", "张"), Cause("api", "edgesync")
    history = [change("1", Kind.UPDATED, 1, cause=first), change("1", Kind.UPDATED, 2, cause=second)]
    assert merged(history).newest.cause == merged(history[::-1]).newest.cause == '{"source":"api","client":"edgesync"}'
    assert history[0].snapshot is UNSET
