"""How a rule's pattern completes about one subject, by event time.

**Order of arrival.** A mark is put into its place by event time, and only windows that contain it can have become
complete. They are tried from the earliest end on, and the first complete one is the match. So events may arrive in any
order as long as none is later than `within` behind the newest one seen for this rule and subject; a later one is
ignored. A stream that is in order gives the decisions that a reader of the sorted stream would make; out of order, a
decision that had already been made stands, and what lies before it is spent.

**Which events.** The match ends with the window's last mark. `count` takes the last `at_least` marks of the window,
`all` the last mark of each condition.

**After a decision** everything up to the match's last event time plus the cooldown is spent. That is also why a
redelivered event changes nothing: it is either still among the marks, or spent, or too late.

**Bounds.** Marks older than two windows behind the newest can be in no window that could still complete. A `count`
holds fewer than `at_least` marks a window. An `all` keeps the newest `MARKS_PER_SET_MAX` marks of each set of
conditions, as an older one can only matter to an event that arrives out of order behind all of them.
"""

from bisect import bisect_left
from typing import Final

from msgspec import Struct

from contracts.rules import AllOf, Pattern
from flink_jobs.triggers.core.partials import Mark, Partial

MARKS_PER_SET_MAX: Final = 8  # marks; how many like events a late one may be behind, and still find its partner

_Marks = tuple[Mark, ...]


class Timing(Struct, frozen=True):
    """A rule's times in the unit of event times."""

    within_us: int
    cooldown_us: int


def step(pattern: Pattern, timing: Timing, partial: Partial, mark: Mark, clock_ms: int) -> tuple[Partial, _Marks]:
    """Return the partial match after one mark, and the marks of the match that it completed, or none.

    Spent, late and repeated marks return `partial` itself.
    """
    if mark.time_us <= partial.silent_until_us or mark.time_us < partial.newest_us - timing.within_us:
        return partial, ()
    at = bisect_left(partial.marks, mark)
    if at < len(partial.marks) and partial.marks[at].event == mark.event:
        return partial, ()
    marks = (*partial.marks[:at], mark, *partial.marks[at:])
    newest_us = max(partial.newest_us, mark.time_us)
    matched = _first_match(pattern, timing.within_us, marks, at)
    silent_until_us = partial.silent_until_us
    if matched:
        silent_until_us = matched[-1].time_us + timing.cooldown_us
    oldest_us = max(newest_us - 2 * timing.within_us, silent_until_us + 1)
    kept = _thinned(pattern, tuple(m for m in marks if m.time_us >= oldest_us))
    return Partial(silent_until_us, newest_us, clock_ms, kept), matched


def _first_match(pattern: Pattern, within_us: int, marks: _Marks, at: int) -> _Marks:
    for end in range(at, len(marks)):
        first_us = marks[end].time_us - within_us
        if marks[at].time_us < first_us:
            break
        start = end
        while start > 0 and marks[start - 1].time_us >= first_us:
            start -= 1
        if matched := _complete(pattern, marks[start : end + 1]):
            return matched
    return ()


def _complete(pattern: Pattern, window: _Marks) -> _Marks:
    """Return the marks by which a window completes the pattern, sorted; none when it does not."""
    if not isinstance(pattern, AllOf):
        return window[-pattern.at_least :] if len(window) >= pattern.at_least else ()
    chosen: set[Mark] = set()
    for bit in range(len(pattern.conditions)):
        last = next((mark for mark in reversed(window) if mark.satisfied >> bit & 1), None)
        if last is None:
            return ()
        chosen.add(last)
    return tuple(sorted(chosen))


def _thinned(pattern: Pattern, marks: _Marks) -> _Marks:
    if not isinstance(pattern, AllOf) or len(marks) <= MARKS_PER_SET_MAX:
        return marks
    kept: list[Mark] = []
    taken: dict[int, int] = {}
    for mark in reversed(marks):
        taken[mark.satisfied] = taken.get(mark.satisfied, 0) + 1
        if taken[mark.satisfied] <= MARKS_PER_SET_MAX:
            kept.append(mark)
    return tuple(reversed(kept))
