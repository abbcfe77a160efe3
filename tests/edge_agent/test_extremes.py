"""What is remembered is what a loop over single readings remembers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.core.filter import extremes
from edge_agent.core.filter.extremes import READING_MAX, Memory

MEMORIES = st.builds(Memory, block_rows=st.integers(1, 6), blocks=st.integers(1, 4))
VALUES = st.lists(st.integers(-50, 50), max_size=60)


def by_hand(memory: Memory, values: list[int]) -> list[float]:
    """Keep whole blocks, and forget whole blocks."""
    largest = []
    for place in range(len(values)):
        first_block = place // memory.block_rows - memory.blocks
        remembered = values[max(first_block, 0) * memory.block_rows : place]
        largest.append(max(remembered, default=-np.inf))
    return largest


@given(MEMORIES, VALUES, st.lists(st.integers(0, 9), max_size=30))
def test_the_largest_before_each_reading_does_not_depend_on_the_chunks(
    memory: Memory, values: list[int], sizes: list[int]
) -> None:
    peaks, found, place = extremes.start(memory), [], 0
    for size in [*sizes, len(values)]:
        chunk = np.array(values[place : place + size], dtype=np.float64)
        peaks, largest = extremes.before(memory, peaks, chunk)
        assert extremes.fits(memory, peaks)
        found.extend(largest.tolist())
        place += len(chunk)
    assert found == by_hand(memory, values)


@pytest.mark.parametrize(("block_rows", "blocks"), [(0, 1), (1, 0), (-1, 3)])
def test_a_memory_of_nothing_is_refused(block_rows: int, blocks: int) -> None:
    with pytest.raises(ValueError, match="expected at least 1 of each"):
        Memory(block_rows, blocks)


def test_what_cannot_be_computed_with_is_no_reading() -> None:
    values = np.array([0.0, -READING_MAX, READING_MAX, 2 * READING_MAX, np.inf, -np.inf, np.nan])
    assert extremes.readable(values).tolist() == [True, True, True, False, False, False, False]
