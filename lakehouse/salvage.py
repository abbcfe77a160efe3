"""Rows of data files that no manifest tells of, and arithmetic over their sequence numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema

from contracts import ranges
from contracts.ranges import RangeSet
from lakehouse.errors import BrokenTableError
from lakehouse.foreign import UNREADABLE


def loose_rows(io: PyArrowFileIO, path: str, schema: Schema, by_id: bool) -> tuple[pa.Table, tuple[str, ...]]:
    """Read a data file of which no manifest tells. Returns its rows in the schema's columns, and what was left out.

    `by_id`: the schema's field ids are the table's own; otherwise columns go by name, for an id would be a guess.
    Raises BrokenTableError.
    """
    try:
        found = pq.ParquetFile(io.new_input(path).open()).read()
        ids = {int((f.metadata or {}).get(b"PARQUET:field_id", b"-1")): f.name for f in found.schema}
        names = {f.name: ids.get(f.field_id) if by_id else f.name for f in schema.fields}
        target = schema.as_arrow()
        columns = [
            found[name].cast(kind.type)
            if (name := names[kind.name]) in found.column_names
            else pa.nulls(len(found), kind.type)
            for kind in target
        ]
        left_out = () if by_id else tuple(sorted(set(found.column_names) - names.keys()))
        return pa.Table.from_arrays(columns, schema=target), left_out
    except UNREADABLE as error:
        raise BrokenTableError(f"file {path}: expected its rows, found: {error}") from error


def runs(numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> RangeSet:
    """Return ascending numbers as half-open ranges."""
    if not len(numbers):
        return ranges.EMPTY
    cuts = np.flatnonzero(np.diff(numbers) != 1)
    firsts, lasts = numbers[np.append(0, cuts + 1)], numbers[np.append(cuts, len(numbers) - 1)]
    return tuple((int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True))


def outside(
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]], held: RangeSet
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which of the numbers lie in none of the ranges."""
    if not held:
        return np.ones(len(numbers), dtype=np.bool_)
    bounds = np.array([edge for pair in held for edge in pair], dtype=np.int64)
    free: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.searchsorted(bounds, numbers, side="right") % 2 == 0
    return free
