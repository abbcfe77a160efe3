"""How a pattern completes about one subject, by event time.

**Order of arrival.** A mark is put into its place by event time, and only windows that contain it can have become
complete. They are tried from the earliest end on, and the first complete one is the match. So events may arrive in any
order as long as none is later than `within` behind the newest one seen for this rule and subject; a later one is
ignored. A stream that is in order gives the decisions that a reader of the sorted stream would make; out of order, a
decision that had already been made stands, and what lies before it is spent.

**Which events.** The match ends with the window's last mark. `count` takes the last `at_least` marks of the window, in
a row when it has `among`; `all` the last mark of each condition; `sequence` for each step from the last back the latest
mark from which the steps before it can be reached; `threshold` all marks of the window.

**After a decision** everything up to the match's last event time plus the cooldown is spent. That is also why a
redelivered event changes nothing: it is either still among the marks, or spent, or too late.

**Bounds.** Marks older than two windows behind the newest can be in no window that could still complete. A `count`
without `among` holds fewer than `at_least` marks a window; with it, that many marks and MARKS_PER_SET_MAX, whatever
they are; a `threshold` is about the newest LEVEL_MARKS_MAX at most. The others keep the newest MARKS_PER_SET_MAX marks
of each set of conditions, as an older one can only matter to an event that arrives out of order behind all of them.
"""

from bisect import bisect_left
from typing import Final

from contracts.rules import COUNT_MAX
from flink_jobs.triggers.core.forms import Chain, Everything, Form, Level, Link, Run, Timing
from flink_jobs.triggers.core.partials import Mark, Partial

LEVEL_MARKS_MAX: Final = COUNT_MAX  # marks of a threshold; as many as a count may hold
MARKS_PER_SET_MAX: Final = 8  # marks; how many like events a late one may be behind, and still find its partner

_Marks = tuple[Mark, ...]


def step(form: Form, timing: Timing, partial: Partial, mark: Mark, clock_ms: int) -> tuple[Partial, _Marks]:
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
    matched = _first_match(form, timing.within_us, marks, at)
    silent_until_us = partial.silent_until_us
    if matched:
        silent_until_us = matched[-1].time_us + timing.cooldown_us
    oldest_us = max(newest_us - 2 * timing.within_us, silent_until_us + 1)
    kept = _thinned(form, tuple(m for m in marks if m.time_us >= oldest_us))
    return Partial(silent_until_us, newest_us, clock_ms, kept), matched


def _first_match(form: Form, within_us: int, marks: _Marks, at: int) -> _Marks:
    for end in range(at, len(marks)):
        first_us = marks[end].time_us - within_us
        if marks[at].time_us < first_us:
            break
        start = end
        while start > 0 and marks[start - 1].time_us >= first_us:
            start -= 1
        if matched := _complete(form, marks[start : end + 1]):
            return matched
    return ()


def _complete(form: Form, window: _Marks) -> _Marks:
    """Return the marks by which a window completes the pattern, sorted; none when it does not."""
    match form:
        case Everything(conditions=wanted):
            return _everything(wanted, window)
        case Run(at_least=at_least):
            return _run(at_least, window)
        case Chain(links=links):
            return _chain(links, window)
        case Level():
            return _level(form, window)


def _everything(wanted: int, window: _Marks) -> _Marks:
    chosen: set[Mark] = set()
    for bit in range(wanted):
        last = next((mark for mark in reversed(window) if mark.satisfied >> bit & 1), None)
        if last is None:
            return ()
        chosen.add(last)
    return tuple(sorted(chosen))


def _run(at_least: int, window: _Marks) -> _Marks:
    """Return the last marks when enough of them carry bit 0; without `among` all do."""
    last = window[-at_least:]
    return last if len(last) == at_least and all(mark.satisfied & 1 for mark in last) else ()


def _level(level: Level, window: _Marks) -> _Marks:
    """Return the window when its marks are enough and their values together pass."""
    enough = len(window) >= level.at_least
    return window if enough and level.passes(level.of([mark.value for mark in window]), level.value) else ()


def _chain(links: tuple[Link, ...], window: _Marks) -> _Marks:
    """Return the chain that ends with the window's last mark.

    `came_from[at]`: by step, from which mark the step's mark at `at` was reached, itself for the first; -1: not at all.
    """
    last_step = len(links) - 1
    if not window[-1].satisfied >> last_step & 1:
        return ()
    came_from = [[at if mark.satisfied & 1 else -1] for at, mark in enumerate(window)]
    for number in range(1, len(links)):
        for at, reached in enumerate(came_from):
            satisfied = window[at].satisfied >> number & 1
            reached.append(_reached(links[number], number, window, came_from, at) if satisfied else -1)
    chosen, at = [window[-1]], len(window) - 1
    for number in range(last_step, 0, -1):
        at = came_from[at][number]
        if at < 0:
            return ()
        chosen.append(window[at])
    return tuple(reversed(chosen)) if came_from[at][0] >= 0 else ()


def _reached(link: Link, number: int, window: _Marks, came_from: list[list[int]], at: int) -> int:
    """Return the latest mark of the step before from which step `number` at `at` can be reached, -1 for none."""
    for before in range(at - 1, -1, -1):
        if window[at].time_us - window[before].time_us > link.after_us:
            return -1
        if came_from[before][number - 1] >= 0:
            return before
        if window[before].satisfied & link.without:
            return -1
    return -1


def _thinned(form: Form, marks: _Marks) -> _Marks:
    if isinstance(form, Run):
        # Whatever is dropped is older than all that is kept: no run comes about because what broke it is forgotten.
        return marks[-(form.at_least + MARKS_PER_SET_MAX) :] if form.in_a_row else marks
    if isinstance(form, Level):
        return marks[-LEVEL_MARKS_MAX:]
    if len(marks) <= MARKS_PER_SET_MAX:
        return marks
    kept: list[Mark] = []
    taken: dict[int, int] = {}
    for mark in reversed(marks):
        taken[mark.satisfied] = taken.get(mark.satisfied, 0) + 1
        if taken[mark.satisfied] <= MARKS_PER_SET_MAX:
            kept.append(mark)
    return tuple(reversed(kept))
