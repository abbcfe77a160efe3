"""A chunk of events cut into parts by subject and time, with numpy: one sort per chunk, a few calls per plan."""

from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.bundle import WindowKind, Windows
from edge_agent.core.windows.held import SEQ_MAX

Values: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Truths: TypeAlias = NDArray[np.bool_]

CODES_MAX: Final = 65_536  # subjects of a chunk; up to there a stable sort of codes is a radix sort, ten times as quick


class Readings(Struct, frozen=True):
    """Valid events as the windows see them, in seq order; `values` has shape (events, sensors)."""

    seqs: Integers
    subjects: list[str]
    times_us: Integers
    values: Values
    kept: Truths


class Ordered:
    """Events by subject, then by time, then by number; `codes` stand for `names`."""

    def __init__(self, readings: Readings) -> None:
        self.names = sorted(set(readings.subjects))
        places = {name: place for place, name in enumerate(self.names)}
        kind = np.uint16 if len(places) <= CODES_MAX else np.int64
        codes = np.fromiter(map(places.__getitem__, readings.subjects), kind, len(readings.subjects))
        times = readings.times_us
        in_order = bool((times[1:] >= times[:-1]).all())
        order = np.argsort(codes, kind="stable") if in_order else np.lexsort((times, codes))
        self.codes = codes[order]
        self.times_us = times[order]
        self.seqs = readings.seqs[order]
        self.kept = readings.kept[order]
        self.values = readings.values[order]

    def parts(self, plan: Windows, sensors: list[int] | None) -> list["Part"]:
        """Return the parts for one plan: by subject, then by pane or run. `sensors` are its columns, None for all."""
        times = self.times_us
        apart = self.codes[1:] != self.codes[:-1]
        grid = times // ((plan.window_ms if plan.kind is WindowKind.SESSION else plan.pane_ms) * 1_000)
        apart |= grid[1:] != grid[:-1]
        if plan.gap_ms is not None:
            apart |= times[1:] - times[:-1] > plan.gap_ms * 1_000
        begins = np.concatenate((np.zeros(1, dtype=np.intp), np.flatnonzero(apart) + 1))
        values = self.values if sensors is None else self.values[:, sensors]
        return Block(times, self.seqs, self.kept, values, begins).parts([self.names[c] for c in self.codes[begins]])


class Block:
    """Ordered events with the values of one plan's sensors, and where its parts begin."""

    def __init__(
        self, times_us: Integers, seqs: Integers, kept: Truths, values: Values, begins: NDArray[np.intp]
    ) -> None:
        self.times_us = times_us
        self.seqs = seqs
        self.kept = kept
        self.values = values
        self._begins = begins

    def parts(self, subjects: list[str]) -> list["Part"]:
        """Return the parts; `subjects` are theirs."""
        begins = self._begins
        ends = np.append(begins[1:], len(self.seqs))
        of_each = (
            begins.tolist(),
            ends.tolist(),
            self.times_us[begins].tolist(),
            self.times_us[ends - 1].tolist(),
            np.minimum.reduceat(self.seqs, begins).tolist(),
            np.maximum.reduceat(self.seqs, begins).tolist(),
            np.add.reduceat(self.kept, begins, dtype=np.int64).tolist(),
        )
        return [
            Part(self, place, subject, *numbers)
            for place, (subject, numbers) in enumerate(zip(subjects, zip(*of_each, strict=True), strict=True))
        ]

    @cached_property
    def columns(self) -> Values:
        """The values by sensor, shape (sensors, events)."""
        return np.ascontiguousarray(self.values.T)

    @cached_property
    def moments(self) -> Values:
        """Per part what `moments_of` returns, shape (parts, 5, sensors)."""
        return _moments_of_parts(self.values, self._begins)


class Part(Struct, frozen=True):
    """Rows [begin, end) of a block: events of one subject in order of time."""

    block: Block
    place: int
    subject: str
    begin: int
    end: int
    first_us: int
    last_us: int
    first_seq: int
    last_seq: int
    kept: int

    @property
    def count(self) -> int:
        """How many events it has."""
        return self.end - self.begin

    @property
    def rows(self) -> Values:
        """Values, shape (events, sensors)."""
        return self.block.values[self.begin : self.end]

    @property
    def columns(self) -> Values:
        """Values, shape (sensors, events)."""
        return self.block.columns[:, self.begin : self.end]

    @property
    def moments(self) -> Values:
        """What `moments_of` returns for it, shape (5, sensors)."""
        moments: Values = self.block.moments[self.place]
        return moments

    @property
    def last(self) -> tuple[int, int, Values]:
        """Time, number and values of the newest event."""
        return self.last_us, int(self.block.seqs[self.end - 1]), self.block.values[self.end - 1]

    def within(self, times_us: tuple[int, int], seqs: tuple[int, int] = (0, SEQ_MAX)) -> "Part | None":
        """Return the events inside both ranges, ends included; None when there are none."""
        mine = slice(self.begin, self.end)
        times, numbers = self.block.times_us[mine], self.block.seqs[mine]
        inside = (times >= times_us[0]) & (times <= times_us[1]) & (numbers >= seqs[0]) & (numbers <= seqs[1])
        if inside.all():
            return self
        if not inside.any():
            return None
        rows = np.flatnonzero(inside) + self.begin
        block = self.block
        begins = np.zeros(1, dtype=np.intp)
        picked = Block(block.times_us[rows], block.seqs[rows], block.kept[rows], block.values[rows], begins)
        return picked.parts([self.subject])[0]


def moments_of(columns: Values) -> Values:
    """Return sum, least, greatest, mean and sum of squared deviations of each sensor, shape (5, sensors).

    `columns` has shape (sensors, events).
    """
    moments = np.empty((5, len(columns)))
    with np.errstate(over="ignore", invalid="ignore"):  # what no double can hold is null in the row
        np.add.reduce(columns, axis=1, out=moments[0])
        np.minimum.reduce(columns, axis=1, out=moments[1])
        np.maximum.reduce(columns, axis=1, out=moments[2])
        np.divide(moments[0], columns.shape[1], out=moments[3])
        deviations = columns - moments[3][:, None]
        np.add.reduce(deviations * deviations, axis=1, out=moments[4])
    return moments


def _moments_of_parts(values: Values, begins: NDArray[np.intp]) -> Values:
    """Return what `moments_of` does for each of the parts of values of shape (events, sensors)."""
    counts = np.diff(np.append(begins, len(values)))
    lowest, highest = np.minimum.reduceat(values, begins, axis=0), np.maximum.reduceat(values, begins, axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(values, begins, axis=0)
        means = sums / counts[:, None]
        deviations = values - np.repeat(means, counts, axis=0)
        squares = np.add.reduceat(deviations * deviations, begins, axis=0)
    return np.stack((sums, lowest, highest, means, squares), axis=1)
