"""Handovers of writers that do not know of each other: no number is taken twice, and none that was offered is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts import ranges
from contracts.ranges import RangeSet
from lakehouse import settling
from lakehouse.handover import Claim, Handover
from lakehouse.settling import Account, settle
from lakehouse.streams import StreamKey

NOW_MS = 1_000_000
KEYS = [StreamKey("telemetry", origin, epoch) for origin in "ab" for epoch in (1, 2)]
SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=2).map(
    lambda found: ranges.union((first, first + size) for first, size in found)
)
CLAIMS = st.lists(st.builds(Claim, st.sampled_from(KEYS), SPANS), max_size=3)


def handover(number: int, claims: list[Claim], floor: int = 0, log: str = "id") -> Handover:
    return Handover("w", number, "telemetry", (), tuple(claims), (), {"t/0": 99}, {"t/0": floor}, {"t": log}, NOW_MS)


@given(st.dictionaries(st.sampled_from(KEYS), SPANS), st.lists(CLAIMS, max_size=6))
def test_what_is_taken_was_never_there_before(known: dict[StreamKey, RangeSet], offered: list[list[Claim]]) -> None:
    handovers = [handover(number, claims, number) for number, claims in enumerate(offered)]
    settled = settle(handovers, Account(known, {"t/0": 1}, {"t": "id"}), NOW_MS)
    assert sorted((*settled.taken, *settled.stale), key=lambda one: one.number) == handovers
    seen = {key: {n for first, end in held for n in range(first, end)} for key, held in known.items()}
    for one in settled.taken:
        for claim in one.claims:
            new = {n for first, end in claim.ranges for n in range(first, end)}
            assert not new & seen.get(claim.key, set())
            seen[claim.key] = seen.get(claim.key, set()) | new
    after = known | settled.changed
    assert {key: {n for first, end in held for n in range(first, end)} for key, held in after.items()} == seen
    assert settled.floors == {"t/0": max([1, *(one.number for one in settled.taken)])}


@given(CLAIMS)
def test_who_repeats_what_is_taken_is_stale(claims: list[Claim]) -> None:
    first = settle([handover(0, claims)], Account({}), NOW_MS)
    again = settle([handover(1, claims)], Account(first.changed, first.floors, first.logs), NOW_MS)
    assert bool(again.taken) == (not claims)


def test_positions_of_a_log_that_was_made_anew_mean_nothing() -> None:
    account = Account({}, {"t/0": 200, "u/0": 7}, {"t": "id", "u": "other"})
    assert settle([handover(0, [], 9, "id")], account, NOW_MS).stale
    settled = settle([handover(0, [], 9, "new")], account, NOW_MS)
    assert (settled.floors, settled.logs) == ({"t/0": 9, "u/0": 7}, {"t": "new", "u": "other"})


def test_files_that_have_waited_too_long_are_not_taken() -> None:
    assert settle([handover(0, [])], Account({}), NOW_MS + 1).stale


def test_what_was_made_of_settled_messages_is_not_taken() -> None:
    account = Account({}, {"t/0": 100}, {"t": "id"})
    assert settle([handover(0, [])], account, NOW_MS).stale
    assert settle([replace(handover(0, []), begins={"t/0": 100})], account, NOW_MS).taken


def test_the_quarantine_holds_a_range_once_until_it_is_released() -> None:
    key = StreamKey("telemetry", "a", 1)
    one = replace(handover(0, []), held=(Claim(key, ((0, 4),)),))
    two = replace(handover(1, []), held=(Claim(key, ((6, 9),)),), released=(Claim(key, ((0, 2),)),))
    settled = settle([one, replace(one, number=2), two], Account({}), NOW_MS)
    assert ([h.number for h in settled.taken], [h.number for h in settled.stale]) == ([0, 1], [2])
    assert settled.held == {key: ((2, 4), (6, 9))}
    rest = replace(handover(3, []), released=(Claim(key, ((0, 9),)),))
    assert settle([rest], Account({}, held=settled.held), NOW_MS).held == {}


def test_a_decision_is_taken_once_and_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "DECISION_IDS_MAX", 2)
    ids = [bytes([number]) * 16 for number in range(4)]
    settled = settle([replace(handover(n, []), ids=(one,)) for n, one in enumerate(ids)], Account({}), NOW_MS)
    assert settled.ids == tuple(ids[-2:])
    assert settle([replace(handover(0, []), ids=(ids[0], ids[3]))], Account({}, ids=settled.ids), NOW_MS).stale
