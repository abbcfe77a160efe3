"""Rows sorted by several columns."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def sorted_order(columns: Sequence[pa.ChunkedArray | pa.Array]) -> NDArray[np.int64]:
    """Return the positions of rows in ascending order of their columns, nulls last; equal rows keep their order.

    Each column becomes integers that order like it, a string by the rank of its value: comparing those is several times
    faster than comparing strings, and names repeat. A column of one value is left out.
    """
    keys = [key for key in map(_ranks, reversed(columns)) if len(key) and key.min() != key.max()]
    if not keys:
        return np.arange(len(columns[0]) if columns else 0, dtype=np.int64)
    order: NDArray[np.int64] = np.lexsort(keys)
    return order


def _ranks(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if flat.null_count == 0 and (pa.types.is_integer(flat.type) or pa.types.is_timestamp(flat.type)):
        return np.asarray(flat.cast(pa.int64()))
    encoded = flat.dictionary_encode()
    places = np.asarray(pc.sort_indices(encoded.dictionary))
    rank = np.empty(len(places) + 1, dtype=np.int64)
    rank[places] = np.arange(len(places))
    rank[-1] = len(places)
    ranked: NDArray[np.int64] = rank[np.asarray(encoded.indices.fill_null(len(places)))]
    return ranked
