"""Sets of sequence numbers as sorted, disjoint, half-open ranges.

A range is `(first, end)` with `first < end`; a set is a tuple of ranges in which neither neighbours touch nor overlap,
so equal sets are equal tuples. All functions are pure; a set of n ranges costs O(n).
"""

from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]
RangeSet: TypeAlias = tuple[Range, ...]

EMPTY: RangeSet = ()


def add(ranges: RangeSet, first: int, end: int) -> RangeSet:
    """Return the set with [first, end) in it; an empty range changes nothing."""
    if first >= end:
        return ranges
    before = [r for r in ranges if r[1] < first]
    after = [r for r in ranges if r[0] > end]
    touching = ranges[len(before) : len(ranges) - len(after)]
    merged = (min([first, *(r[0] for r in touching)]), max([end, *(r[1] for r in touching)]))
    return (*before, merged, *after)


def union(ranges: Iterable[Range]) -> RangeSet:
    """Return the set of everything in any of the ranges, which may overlap and come in any order."""
    merged: list[Range] = []
    for first, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return tuple(merged)


def missing(ranges: RangeSet, first: int, end: int) -> RangeSet:
    """Return the parts of [first, end) that the set does not hold."""
    gaps: list[Range] = []
    at = first
    for low, high in ranges:
        if high <= at:
            continue
        if low >= end:
            break
        if low > at:
            gaps.append((at, low))
        at = max(at, high)
    if at < end:
        gaps.append((at, end))
    return tuple(gaps)


def common(ranges: RangeSet, first: int, end: int) -> RangeSet:
    """Return the parts of [first, end) that the set holds."""
    return tuple((max(first, low), min(end, high)) for low, high in ranges if low < end and high > first)


def without(ranges: RangeSet, others: RangeSet) -> RangeSet:
    """Return what the set holds and the other set does not."""
    return tuple(part for first, end in ranges for part in missing(others, first, end))


def covers(ranges: RangeSet, first: int, end: int) -> bool:
    """Say whether the set holds every number of [first, end)."""
    return not missing(ranges, first, end)


def upto(ranges: RangeSet) -> int:
    """Return the first number, counting from 0, that the set does not hold."""
    return ranges[0][1] if ranges and ranges[0][0] == 0 else 0


def size(ranges: RangeSet) -> int:
    """Return how many numbers the set holds."""
    return sum(end - first for first, end in ranges)
