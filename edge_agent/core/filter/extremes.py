"""The largest of the readings that are remembered, in memory that does not grow with the series.

Readings are remembered by blocks: of a closed block only its largest is kept. So a reading is remembered for at least
`block_rows * blocks` further readings and for at most one block more.
"""

from typing import Final, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]

# Beyond it a reading counts as none: twice it, squared and summed over a thousand rows, must still be a number.
READING_MAX: Final = 1e150


class Memory(Struct, frozen=True, forbid_unknown_fields=True):
    """How long a reading is remembered: `blocks` closed blocks of `block_rows` each, and the block that fills."""

    block_rows: int
    blocks: int

    def __post_init__(self) -> None:
        if self.block_rows < 1 or self.blocks < 1:
            raise ValueError(f"memory of {self.blocks} blocks of {self.block_rows} rows: expected at least 1 of each")


class Peaks(Struct, frozen=True):
    """Largest of each closed block, oldest first, shape (blocks,), and of the block that fills; -inf where none is."""

    closed: Values
    filling: float
    filling_rows: int


def readable(readings: Values) -> NDArray[np.bool_]:
    """Say which readings can be computed with: numbers of at most READING_MAX."""
    with np.errstate(invalid="ignore"):
        usable: NDArray[np.bool_] = np.abs(readings) <= READING_MAX
    return usable


def start(memory: Memory) -> Peaks:
    """Return a memory that holds nothing."""
    return Peaks(np.full(memory.blocks, -np.inf), -np.inf, 0)


def fits(memory: Memory, peaks: Peaks) -> bool:
    """Say whether `peaks` can have come from this memory."""
    return peaks.closed.shape == (memory.blocks,) and 0 <= peaks.filling_rows < memory.block_rows


def before(memory: Memory, peaks: Peaks, values: Values) -> tuple[Peaks, Values]:
    """Return the memory after `values` (no NaN), shape (n,), and what was the largest just before each, shape (n,)."""
    rows, filled = memory.block_rows, peaks.filling_rows
    block_count = (filled + len(values)) // rows + 1  # the last one is not full, and may be empty
    slots = np.full(block_count * rows, -np.inf)
    slots[0] = peaks.filling
    slots[filled : filled + len(values)] = values
    if filled == 0 and len(values) == 0:
        return peaks, slots[:0]
    within = np.maximum.accumulate(slots.reshape(block_count, rows), axis=1)
    closed = np.concatenate((peaks.closed, within[:-1, -1]))
    largest = np.empty_like(within)
    for block in range(block_count):
        behind = closed[block : block + memory.blocks].max()
        largest[block, 0] = behind
        np.maximum(within[block, :-1], behind, out=largest[block, 1:])
    filling_rows = (filled + len(values)) % rows
    filling = float(within[-1, -1]) if filling_rows else -np.inf
    return Peaks(closed[-memory.blocks :].copy(), filling, filling_rows), largest.reshape(-1)[
        filled : filled + len(values)
    ]
