"""What a stream's rules remember of the events it kept: for `deduplicate` and `on_change`.

An event is refused or not by what was kept before it, one after the other; this is the one place where a filter looks
at single events, and only at those that such a rule picked. Both profiles share it.

What is remembered is bounded: KEYS_MAX keys per rule, the one kept longest ago forgotten first, texts by their digest
once they are long. A key that is forgotten too early lets an event through that would have been refused, never the
other way round. Since only kept events are remembered, `refill` with those of the last `horizon_ms` restores all that
can still refuse anything.
"""

import copy
import hashlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from contracts.contract import Contract
from contracts.edge_rules import DeadBand, Deduplicate, EdgeRule, OnChange

KEYS_MAX: Final = 2_048  # keys per rule; 8 rules with keys of some 250 bytes make 4 MB of a device's 66
TEXT_CHARS_MAX: Final = 48  # characters; a longer text is remembered as its digest, which takes as much
DIGEST_BYTES: Final = 16  # bytes; two texts of one day share one with a probability below 1e-20

Plain: TypeAlias = Callable[[str], Sequence[Any]]


class Lane(Struct, frozen=True):
    """What one keyed rule sees of a chunk: `rows`, and for each row of the chunk key, event time (us) and values."""

    memory: "Keyed"
    place: int
    rows: Sequence[int]
    keys: Sequence[Any]
    times: Sequence[int]
    values: Sequence[Any]


class Duplicates:
    """`deduplicate`: keys with the time of the newest kept event."""

    def __init__(self, action: Deduplicate) -> None:
        self.by = action.fields
        self.watched: tuple[str, ...] = ()
        self.horizon_ms = action.within_ms
        self._within_us = action.within_ms * 1_000
        self._times: dict[Any, int] = {}

    def __len__(self) -> int:
        return len(self._times)

    def refuses(self, key: Any, time_us: int, _values: Any) -> bool:
        """Say whether the event repeats a kept one."""
        last = self._times.get(key)
        return last is not None and -self._within_us < time_us - last < self._within_us

    def remember(self, key: Any, time_us: int, _values: Any) -> None:
        """Take in a kept event."""
        self._times.pop(key, None)
        self._times[key] = time_us
        if len(self._times) > KEYS_MAX:
            del self._times[next(iter(self._times))]

    def copied(self) -> "Duplicates":
        """Return an equal memory that changes on its own."""
        twin = copy.copy(self)
        twin._times = dict(self._times)
        return twin


class Changes:
    """`on_change`: keys with time and watched values of the newest kept event."""

    def __init__(self, action: OnChange, contract: Contract) -> None:
        subject = () if contract.subject_field is None else (contract.subject_field,)
        self.by = action.by or subject
        self.watched = tuple(band.field for band in action.fields)
        self.horizon_ms = action.max_silence_ms
        self._silence_us = action.max_silence_ms * 1_000
        changes = tuple(map(_changed, action.fields))
        self._changed = changes[0] if len(changes) == 1 else _any_of(changes)
        self._last: dict[Any, tuple[int, Any]] = {}

    def __len__(self) -> int:
        return len(self._last)

    def refuses(self, key: Any, time_us: int, values: Any) -> bool:
        """Say whether no watched field left its dead-band since the last kept event, which is not too long ago."""
        found = self._last.get(key)
        if found is None:
            return False
        then_us, before = found
        if not -self._silence_us < time_us - then_us < self._silence_us:
            return False
        return values == before or not self._changed(before, values)

    def remember(self, key: Any, time_us: int, values: Any) -> None:
        """Take in a kept event."""
        self._last.pop(key, None)
        self._last[key] = time_us, values
        if len(self._last) > KEYS_MAX:
            del self._last[next(iter(self._last))]

    def copied(self) -> "Changes":
        """Return an equal memory that changes on its own."""
        twin = copy.copy(self)
        twin._last = dict(self._last)
        return twin


Keyed: TypeAlias = Duplicates | Changes


def keyed_of(rules: Iterable[EdgeRule], contract: Contract) -> dict[int, Keyed]:
    """Return the empty memory of every rule that has one, by its place among the rules."""
    keyed: dict[int, Keyed] = {}
    for place, rule in enumerate(rules):
        if isinstance(rule.action, Deduplicate):
            keyed[place] = Duplicates(rule.action)
        elif isinstance(rule.action, OnChange):
            keyed[place] = Changes(rule.action, contract)
    return keyed


def copied(keyed: Mapping[int, Keyed]) -> dict[int, Keyed]:
    """Return memories that change on their own."""
    return {place: memory.copied() for place, memory in keyed.items()}


def inherited(
    rules: Sequence[EdgeRule], keyed: Mapping[int, Keyed], before: Sequence[EdgeRule], theirs: Mapping[int, Keyed]
) -> dict[int, Keyed]:
    """Return the memories of `rules`, those of rules that were there before as copies of what these remember.

    A rule is the same when it concerns and refuses the same events, whatever its name and place.
    """
    known = [(before[place], memory) for place, memory in theirs.items()]
    found = dict(keyed)
    for place, memory in keyed.items():
        rule = rules[place]
        for other, remembered in known:
            same = (other.when, other.action, remembered.by) == (rule.when, rule.action, memory.by)
            if same:
                found[place] = remembered.copied()
    return found


def lanes(
    keyed: Mapping[int, Keyed], rows_seen: Mapping[int, Sequence[int]], plain: Plain, time_field: str
) -> list[Lane]:
    """Return what keyed rules see of a chunk; a rule that no event came to is left out.

    `rows_seen` are each rule's rows, `plain` gives a column of the chunk as plain values.
    """
    found: list[Lane] = []
    for place, rows in rows_seen.items():
        if rows:
            memory, times = keyed[place], plain(time_field)
            keys, values = (_side_by_side(names, plain, len(times)) for names in (memory.by, memory.watched))
            found.append(Lane(memory, place, rows, keys, times, values))
    return found


def settle(lanes: Sequence[Lane], kept: Sequence[bool]) -> list[tuple[int, int]]:
    """Ask and teach the keyed rules event by event; return (row, rule) for each event that one refuses.

    `kept` says of each row of the chunk whether the event is kept when no keyed rule refuses it.
    """
    if len(lanes) == 1:
        return _settle_one(lanes[0], kept)
    refused: list[tuple[int, int]] = []
    passed: list[tuple[Lane, int]] = []
    at = gone = -1
    for row, number in _merged(lanes):
        lane = lanes[number]
        if row != at:
            _remember(passed)
            at = row
        elif row == gone:
            continue
        if lane.memory.refuses(lane.keys[row], lane.times[row], lane.values[row]):
            refused.append((row, lane.place))
            passed.clear()
            gone = row
        elif kept[row]:
            passed.append((lane, row))
    _remember(passed)
    return refused


def refill(lanes: Sequence[Lane], kept: Sequence[bool]) -> None:
    """Teach the keyed rules what was kept earlier."""
    _remember([(lane, row) for lane in lanes for row in lane.rows if kept[row]])


def shortened(texts: Iterable[str | None]) -> list[Any]:
    """Return texts as they are remembered: long ones as digests."""
    return [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
        if text is not None and len(text) > TEXT_CHARS_MAX
        else text
        for text in texts
    ]


def _settle_one(lane: Lane, kept: Sequence[bool]) -> list[tuple[int, int]]:
    refused: list[tuple[int, int]] = []
    refuses, remember, place = lane.memory.refuses, lane.memory.remember, lane.place
    keys, times, values = lane.keys, lane.times, lane.values
    for row in lane.rows:
        if refuses(keys[row], times[row], values[row]):
            refused.append((row, place))
        elif kept[row]:
            remember(keys[row], times[row], values[row])
    return refused


def _merged(lanes: Sequence[Lane]) -> list[tuple[int, int]]:
    """Return (row, lane) in the order of events and then of rules."""
    return sorted((row, number) for number, lane in enumerate(lanes) for row in lane.rows)


def _remember(passed: list[tuple[Lane, int]]) -> None:
    for lane, row in passed:
        lane.memory.remember(lane.keys[row], lane.times[row], lane.values[row])
    passed.clear()


def _side_by_side(names: tuple[str, ...], plain: Plain, rows: int) -> Sequence[Any]:
    """Return one value per row: the field's own, or several fields' as a tuple."""
    if len(names) == 1:
        return plain(names[0])
    return list(zip(*map(plain, names), strict=True)) if names else [()] * rows


def _any_of(changes: tuple[Callable[[Any, Any], bool], ...]) -> Callable[[Any, Any], bool]:
    def changed(before: Any, values: Any) -> bool:
        return any(map(operator.call, changes, before, values))

    return changed


def _changed(band: DeadBand) -> Callable[[Any, Any], bool]:
    """Return whether a value is a change against the one before."""
    if band.absolute is not None:
        absolute = band.absolute
        return lambda before, value: (
            before != value and (before is None or value is None or abs(value - before) > absolute)
        )
    if band.relative is not None:
        relative = band.relative
        return lambda before, value: (
            before != value and (before is None or value is None or abs(value - before) > relative * abs(before))
        )
    return lambda before, value: bool(before != value)
