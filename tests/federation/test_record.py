"""Corrections and as-of: the record against an oracle that only follows the words of its description."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from federation.history.model import Entry
from federation.history.record import CORRECTION_LINKS_MAX, standing

DAY_0 = datetime(2026, 1, 1, tzinfo=UTC)


def entry(entry_id: str, day: int, supersedes: str | None = None, seq: int = 0) -> Entry:
    return Entry(
        entry_id=entry_id,
        kind="note",
        work_order_id="W-1",
        status=None,
        part_no=None,
        note=f"换了密封圈 {entry_id}",
        technician="t-1",
        supersedes=supersedes,
        occurred_at=DAY_0 + timedelta(days=day),
        origin="tablet-01",
        epoch=1,
        seq=seq,
    )


def ids(entries: list[Entry], as_of: datetime | None = None) -> list[str]:
    return [kept.entry_id for kept in standing(entries, as_of)]


def test_a_correction_hides_what_it_corrects_and_names_the_chain() -> None:
    found = standing([entry("a", 0), entry("b", 1, "a"), entry("c", 2, "b"), entry("d", 1)])
    assert [(kept.entry_id, kept.corrects) for kept in found] == [("d", ()), ("c", ("b", "a"))]


def test_before_the_correction_the_first_entry_stands() -> None:
    entries = [entry("a", 0), entry("b", 2, "a")]
    assert ids(entries, DAY_0 + timedelta(days=1)) == ["a"]
    assert ids(entries, DAY_0 + timedelta(days=2)) == ["b"]
    assert ids(entries, DAY_0 - timedelta(days=1)) == []


def test_a_correction_from_a_tablet_whose_clock_is_behind_still_corrects() -> None:
    assert ids([entry("a", 5), entry("b", 4, "a")]) == ["b"]


def test_an_entry_that_names_itself_stands() -> None:
    assert ids([entry("a", 0, "a")]) == ["a"]


def test_a_correction_of_something_unknown_stands_and_says_what_it_meant() -> None:
    (found,) = standing([entry("b", 0, "elsewhere")])
    assert found.corrects == ("elsewhere",)


def test_an_endless_chain_is_cut() -> None:
    chain = [entry(str(n), n, str(n - 1) if n else None) for n in range(3 * CORRECTION_LINKS_MAX)]
    (found,) = standing(chain)
    assert len(found.corrects) == CORRECTION_LINKS_MAX


def test_chinese_text_is_kept() -> None:
    (found,) = standing([entry("a", 0)])
    assert found.note == "换了密封圈 a"


NAMES = st.sampled_from("abcdefgh")
ENTRIES = st.lists(
    st.builds(entry, NAMES, st.integers(0, 5), st.none() | NAMES, st.integers(0, 1_000)),
    max_size=8,
    unique_by=lambda e: e.entry_id,
)


@given(ENTRIES, st.none() | st.integers(0, 5))
def test_what_stands_is_what_no_known_entry_names(entries: list[Entry], day: int | None) -> None:
    as_of = None if day is None else DAY_0 + timedelta(days=day)
    known = [e for e in entries if as_of is None or e.occurred_at <= as_of]
    expected = {e.entry_id for e in known if not any(o.supersedes == e.entry_id and o is not e for o in known)}
    found = standing(entries, as_of)
    assert {kept.entry_id for kept in found} == expected
    assert [kept.occurred_at for kept in found] == sorted(kept.occurred_at for kept in found)
