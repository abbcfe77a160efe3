"""Events as numpy arrays: the full profile."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Windows as WindowsPlan
from contracts.contract import FLOATS, Contract, Field, FieldType
from edge_agent.core.events import EPOCH, Column, Events, micros
from edge_agent.core.filter.filtering import matrix
from edge_agent.core.filter.rules import sampled
from edge_agent.core.profile import SpoolPart
from edge_agent.core.windows.marks import WindowMark
from edge_agent.core.windows.parts import Readings
from edge_agent.core.windows.windows import Windows

Truths: TypeAlias = NDArray[np.bool_]
Integers: TypeAlias = NDArray[np.int64]

_NUMPY: Final[dict[FieldType, Any]] = {
    FieldType.INT: np.int32,
    FieldType.LONG: np.int64,
    FieldType.TIMESTAMPTZ: np.int64,
    FieldType.FLOAT: np.float32,
    FieldType.DOUBLE: np.float64,
    FieldType.BOOLEAN: np.bool_,
}


class Arrays:
    """Implements `edge_agent.core.profile.Profile`: required numbers, times and truth values are arrays."""

    arrays: Final = True

    def integers(self, values: Sequence[int]) -> Integers:
        if isinstance(values, range):
            return np.arange(values.start, values.stop, values.step, dtype=np.int64)
        return np.array(values, dtype=np.int64)

    def column(self, field: Field, values: Sequence[Any]) -> Column:
        if field.type is FieldType.TIMESTAMPTZ:
            if field.required:
                since = [moment - EPOCH for moment in values]
                return np.array(since, dtype="timedelta64[us]").astype(np.int64)
            return [None if moment is None else micros(moment) for moment in values]
        if field.required and field.type is not FieldType.STRING:
            with np.errstate(over="ignore"):
                return np.array(values, dtype=np.float64 if field.type in FLOATS else None).astype(_NUMPY[field.type])
        return list(values)

    def not_finite(self, field: Field, column: Column) -> list[int]:
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.array(column, dtype=np.float64).astype(_NUMPY[field.type]))
        if finite.all():
            return []
        return [row for row in np.flatnonzero(~finite).tolist() if column[row] is not None]

    def mask(self, truths: Sequence[bool]) -> Truths:
        return np.array(truths, dtype=np.bool_)

    def select(self, events: Events, keep: Truths) -> Events:
        if keep.all():
            return events
        rows = np.flatnonzero(keep).tolist()
        columns: dict[str, Column] = {
            name: column[keep] if isinstance(column, np.ndarray) else [column[row] for row in rows]
            for name, column in events.columns.items()
        }
        lines = [events.lines[row] for row in rows] if events.lines else []
        values = [events.values[row] for row in rows] if events.values else []
        return Events(events.seqs[keep], columns, lines, values)

    def count(self, mask: Truths) -> int:
        return int(np.count_nonzero(mask))

    def without(self, mask: Truths, other: Truths) -> Truths:
        return mask & ~other

    def neither(self, mask: Truths, other: Truths) -> Truths:
        return ~(mask | other)

    def picked(self, values: NDArray[Any], mask: Truths) -> NDArray[Any]:
        found: NDArray[Any] = values[mask]
        return found

    def bounds(self, column: Column) -> tuple[int, int]:
        numbers = np.asarray(column, dtype=np.int64)
        return int(numbers.min()), int(numbers.max())

    def sampled(self, seqs: Integers, seed: int, fraction: float) -> Truths:
        return sampled(seqs, seed, fraction)

    def windows(self, plans: Sequence[WindowsPlan], marks: Iterable[WindowMark]) -> Windows:
        return Windows(plans, marks)

    def readings(
        self, events: Events, subjects: Sequence[str], times_us: Column, sensors: Sequence[str], kept: Truths
    ) -> Readings:
        times = np.asarray(times_us, dtype=np.int64)
        return Readings(events.seqs, list(subjects), times, matrix(events, tuple(sensors), np.float64), kept)

    def merged(self, contract: Contract, parts: Sequence[SpoolPart]) -> tuple[Events, Truths, Truths]:
        if not parts:
            none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
            return Events(none, {field.name: [] for field in contract.fields}, [], []), nothing, nothing
        seqs = np.concatenate([np.asarray(part.rows.seqs, dtype=np.int64) for part in parts])
        lengths = [len(part.rows.seqs) for part in parts]
        order = np.argsort(seqs, kind="stable")
        places = order.tolist()
        columns: dict[str, Column] = {}
        for field in contract.fields:
            found = [part.rows.columns[field.name] for part in parts]
            if all(isinstance(column, np.ndarray) for column in found):
                columns[field.name] = np.concatenate(found)[order]
            else:
                listed = [value for column in found for value in column]
                columns[field.name] = [listed[place] for place in places]
        kept = np.repeat(np.array([part.kept for part in parts]), lengths)[order]
        windowed = np.repeat(np.array([part.windowed for part in parts]), lengths)[order]
        return Events(seqs[order], columns, [], []), kept, windowed


ARRAYS: Final = Arrays()
