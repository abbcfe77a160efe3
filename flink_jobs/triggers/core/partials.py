"""What a key shard remembers: per subject, the partial match of every rule that has begun to match.

All values are frozen and the dictionaries in them are never changed once made: a step returns new ones.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from contracts.decisions import EventId
from contracts.rules import Scalar

LONG_AGO_US: Final = -(2**62)  # before any event time, and far enough from the edge to subtract a window


class Mark(Struct, frozen=True, array_like=True, order=True):
    """An event that satisfied conditions of a rule: bit i of `satisfied` stands for condition i.

    `value` is that of the field that a threshold is about, for other patterns 0: marks are ordered, and None is not.
    """

    time_us: int
    event: EventId
    satisfied: int
    value: Scalar = 0


class Partial(Struct, frozen=True, array_like=True):
    """A rule's partial match about one subject.

    `marks` are sorted. Events up to `silent_until_us` are spent: they led to a decision or fell into its cooldown.
    `newest_us` is the newest event time seen, `touched_ms` the shard's clock when the match last changed.
    """

    silent_until_us: int = LONG_AGO_US
    newest_us: int = LONG_AGO_US
    touched_ms: int = 0
    marks: tuple[Mark, ...] = ()


Matches: TypeAlias = Mapping[str, Partial]  # of one subject, by rule key


class ShardState(Struct, frozen=True):
    """Partial matches by subject.

    `clock_ms` is how far the shard has come: the newest sealing time among its messages, never later than the reader's
    own clock, so that neither a device's wrong clock nor a replay of old events makes the shard forget. `swept_ms` is
    the clock when it last forgot what was idle.
    """

    clock_ms: int = 0
    swept_ms: int = 0
    subjects: Mapping[str, Matches] = {}


EMPTY: Final = ShardState()


def restored(subjects: Mapping[str, Matches]) -> ShardState:
    """Return the state whose subjects were stored; the clock was not, it goes on from the last change."""
    clock_ms = max((match.touched_ms for matches in subjects.values() for match in matches.values()), default=0)
    return ShardState(clock_ms, clock_ms, subjects)


def changes(before: ShardState, after: ShardState) -> tuple[dict[str, Matches], list[str]]:
    """Return what must be written to turn one state into the next: matches by subject, and subjects to remove.

    Unchanged subjects are the same objects, so this compares no contents.
    """
    if before.subjects is after.subjects:
        return {}, []
    changed = {s: matches for s, matches in after.subjects.items() if before.subjects.get(s) is not matches}
    return changed, [subject for subject in before.subjects if subject not in after.subjects]
