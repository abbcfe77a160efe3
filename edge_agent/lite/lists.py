"""Events as lists and `array.array`s: the lite profile. The twin of `edge_agent.core.arrays`."""

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from math import isfinite
from operator import not_, or_
from typing import Any, Final

from contracts.bundle import Windows as WindowsPlan
from contracts.contract import Contract, Field, FieldType
from contracts.edge_rules import as_float32
from edge_agent.core.events import Column, Events, micros
from edge_agent.core.profile import SpoolPart
from edge_agent.core.windows.marks import WindowMark
from edge_agent.lite.conditions import Mask
from edge_agent.lite.parts import Readings
from edge_agent.lite.rules import sampled
from edge_agent.lite.windows import Windows

_CODES: Final = {
    FieldType.INT: "i",
    FieldType.LONG: "q",
    FieldType.TIMESTAMPTZ: "q",
    FieldType.FLOAT: "f",
    FieldType.DOUBLE: "d",
}


class Lists:
    """Implements `edge_agent.core.profile.Profile`: required numbers and times are `array.array`s, masks lists."""

    arrays: Final = False

    def integers(self, values: Sequence[int]) -> "array[int]":
        return array("q", values)

    def column(self, field: Field, values: Sequence[Any]) -> Column:
        if field.type is FieldType.TIMESTAMPTZ:
            values = [None if moment is None else micros(moment) for moment in values]
        code = _CODES.get(field.type) if field.required else None
        return array(code, values) if code is not None else list(values)

    def not_finite(self, field: Field, column: Column) -> list[int]:
        if field.type is FieldType.FLOAT and isinstance(column, list):
            column = [None if value is None else as_float32(value) for value in column]
        return [row for row, value in enumerate(column) if value is not None and not isfinite(value)]

    def mask(self, truths: Sequence[bool]) -> Mask:
        return list(truths)

    def select(self, events: Events, keep: Mask) -> Events:
        if all(keep):
            return events
        columns = {name: self.picked(column, keep) for name, column in events.columns.items()}
        lines, values = list(compress(events.lines, keep)), list(compress(events.values, keep))
        return Events(self.picked(events.seqs, keep), columns, lines, values)

    def count(self, mask: Mask) -> int:
        return sum(mask)

    def without(self, mask: Mask, other: Mask) -> Mask:
        return [one and not two for one, two in zip(mask, other, strict=True)]

    def neither(self, mask: Mask, other: Mask) -> Mask:
        return list(map(not_, map(or_, mask, other)))

    def picked(self, values: Any, mask: Mask) -> Any:
        found = compress(values, mask)
        return array(values.typecode, found) if isinstance(values, array) else list(found)

    def bounds(self, column: Column) -> tuple[int, int]:
        return min(column), max(column)

    def sampled(self, seqs: "array[int]", seed: int, fraction: float) -> Mask:
        return sampled(seqs, seed, fraction)

    def windows(self, plans: Sequence[WindowsPlan], marks: Iterable[WindowMark]) -> Windows:
        return Windows(plans, marks)

    def readings(
        self, events: Events, subjects: Sequence[str], times_us: Column, sensors: Sequence[str], kept: Mask
    ) -> Readings:
        columns = [array("d", events.columns[name]) for name in sensors]
        return Readings(events.seqs, subjects, list(times_us), list(zip(*columns, strict=True)), kept)

    def merged(self, contract: Contract, parts: Sequence[SpoolPart]) -> tuple[Events, Mask, Mask]:
        seqs = [seq for part in parts for seq in part.rows.seqs]
        order = sorted(range(len(seqs)), key=seqs.__getitem__)
        columns: dict[str, Column] = {}
        for field in contract.fields:
            found = [value for part in parts for value in part.rows.columns[field.name]]
            code = _CODES.get(field.type) if field.required else None
            ordered = map(found.__getitem__, order)
            columns[field.name] = array(code, ordered) if code is not None else list(ordered)
        kept = [part.kept for part in parts for _ in part.rows.seqs]
        windowed = [part.windowed for part in parts for _ in part.rows.seqs]
        events = Events(array("q", map(seqs.__getitem__, order)), columns, [], [])
        return events, list(map(kept.__getitem__, order)), list(map(windowed.__getitem__, order))


LISTS: Final = Lists()
