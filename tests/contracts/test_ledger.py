"""Ledger totals."""

from hypothesis import given
from hypothesis import strategies as st

from contracts import ledger
from contracts.ledger import Entry, Fate, Totals

ENTRIES = st.lists(
    st.builds(
        Entry,
        stream=st.just("telemetry"),
        stream_epoch=st.just(1),
        first_seq=st.integers(0, 100),
        span=st.integers(1, 100),
        fate=st.sampled_from(Fate),
        count=st.integers(0, 100),
    )
)


@given(entries=ENTRIES, observed=st.integers(0, 10_000))
def test_every_count_is_under_its_fate_and_the_rest_is_unexplained(entries: list[Entry], observed: int) -> None:
    totals = ledger.total(observed, entries)
    by_fate = {fate: sum(entry.count for entry in entries if entry.fate is fate) for fate in Fate}
    assert totals == Totals(
        observed, by_fate[Fate.KEPT], by_fate[Fate.AGGREGATED], by_fate[Fate.DROPPED], by_fate[Fate.LOST]
    )
    assert totals.unexplained == observed - sum(by_fate.values())


@given(entries=ENTRIES, cut=st.integers(0, 20))
def test_totals_of_parts_add_up(entries: list[Entry], cut: int) -> None:
    whole, left, right = (ledger.total(0, part) for part in (entries, entries[:cut], entries[cut:]))
    assert whole.unexplained == left.unexplained + right.unexplained
    assert whole.dropped == left.dropped + right.dropped


def test_a_sound_ledger_leaves_nothing_unexplained() -> None:
    entries = [Entry("s", 1, 0, 10, fate, count) for fate, count in zip(Fate, (1, 2, 3, 4), strict=True)]
    assert ledger.total(10, entries).unexplained == 0
    assert ledger.total(9, entries).unexplained == -1, "an event with two fates shows too"
