"""What a key shard remembers: the partial match of every rule about every subject that has one.

All values are frozen and the dictionaries in them are never changed once made: a step returns new ones.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from contracts.decisions import EventId

LONG_AGO_US: Final = -(2**62)  # before any event time, and far enough from the edge to subtract a window


class Mark(Struct, frozen=True, array_like=True, order=True):
    """An event that satisfied conditions of a rule: bit i of `satisfied` stands for condition i."""

    time_us: int
    event: EventId
    satisfied: int


class Partial(Struct, frozen=True, array_like=True):
    """A rule's partial match about one subject.

    `marks` are sorted. Events up to `silent_until_us` are spent: they led to a decision or fell into its cooldown.
    `newest_us` is the newest event time seen, `touched_ms` the shard's clock when the match last changed.
    """

    silent_until_us: int = LONG_AGO_US
    newest_us: int = LONG_AGO_US
    touched_ms: int = 0
    marks: tuple[Mark, ...] = ()


Subjects: TypeAlias = Mapping[str, Partial]


class ShardState(Struct, frozen=True, array_like=True):
    """Partial matches by rule (`rule_key`) and subject.

    `clock_ms` is how far the shard has come: the newest sealing time among its messages, never later than the reader's
    own clock, so that neither a device's wrong clock nor a replay of old events makes the shard forget.
    """

    clock_ms: int = 0
    swept_ms: int = 0
    matches: Mapping[str, Subjects] = {}


EMPTY: Final = ShardState()


def count(state: ShardState) -> int:
    """Return how many partial matches the shard remembers."""
    return sum(len(subjects) for subjects in state.matches.values())
