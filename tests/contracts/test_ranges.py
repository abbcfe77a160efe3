"""Ranges against Python's own sets."""

from functools import reduce
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from contracts import ranges
from contracts.ranges import EMPTY, Range, RangeSet

NUMBERS = st.integers(0, 40)
PARTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def numbers(parts: list[Range] | RangeSet) -> set[int]:
    return {number for first, end in parts for number in range(first, end)}


def is_canonical(found: RangeSet) -> bool:
    return all(first < end for first, end in found) and all(left[1] < right[0] for left, right in pairwise(found))


@given(PARTS)
def test_union_is_the_set_of_all_numbers(parts: list[Range]) -> None:
    found = ranges.union(parts)
    assert numbers(found) == numbers(parts)
    assert is_canonical(found)
    assert ranges.size(found) == len(numbers(parts))


@given(PARTS)
def test_adding_one_by_one_gives_the_union(parts: list[Range]) -> None:
    assert reduce(lambda found, part: ranges.add(found, *part), parts, EMPTY) == ranges.union(parts)


@given(PARTS, NUMBERS, NUMBERS)
def test_missing_is_the_difference(parts: list[Range], first: int, end: int) -> None:
    held = ranges.union(parts)
    gaps = ranges.missing(held, first, end)
    assert numbers(gaps) == set(range(first, end)) - numbers(parts)
    assert is_canonical(gaps)
    assert ranges.covers(held, first, end) == (gaps == EMPTY)


@given(PARTS)
def test_upto_is_the_first_number_that_is_not_held(parts: list[Range]) -> None:
    held = numbers(parts)
    assert ranges.upto(ranges.union(parts)) == next(number for number in range(50) if number not in held)
