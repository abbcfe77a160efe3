"""Picked rows as candidate messages: one per batch and key shard of the subject."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.candidates import Candidates, shard_of
from contracts.contract import SEQ_COLUMN
from flink_jobs.triggers.preselect.decoding import Decoded
from flink_jobs.triggers.preselect.row_filter import RowFilter, passing

US_PER_MS: Final = 1_000


def candidates(decoded: Decoded, row_filter: RowFilter, ruleset: int) -> Iterator[Candidates]:
    """Yield a message for every batch and key shard with a row that passes; rows keep their order in the batch.

    Rows without a subject cannot be about anything and are left out. An event without a time of its own counts from the
    moment its batch was sealed.
    """
    contract = decoded.contract
    if contract.subject_kind is None:
        return
    mask = passing(row_filter, decoded.table)
    if contract.subject_field is not None:
        mask = pc.and_(mask, pc.is_valid(decoded.table.column(contract.subject_field)))
    picked = np.flatnonzero(mask.to_numpy())
    if not len(picked):
        return
    rows, batch_of = decoded.table.take(pa.array(picked)), decoded.batch_of[picked]
    subjects = _subjects(decoded, rows, batch_of)
    shards = _shards(subjects)
    order = np.lexsort((np.arange(len(picked)), shards, batch_of))
    columns = _columns(decoded, rows, batch_of, subjects, row_filter.fields, order)
    names = (SEQ_COLUMN, contract.event_time_field or "sealed_at", contract.subject_field or "origin")
    shards, batch_of = shards[order], batch_of[order]
    breaks = np.flatnonzero((np.diff(batch_of) != 0) | (np.diff(shards) != 0)) + 1
    for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(order)], strict=True):
        batch = decoded.batches[batch_of[start]]
        yield Candidates(
            shard=int(shards[start]),
            ruleset=ruleset,
            contract=contract.id,
            contract_version=contract.version,
            subject_kind=contract.subject_kind,
            origin=batch.origin,
            epoch=batch.header.epoch,
            sealed_at_ms=batch.header.sealed_at_ms,
            names=(*names, *row_filter.fields),
            columns=tuple(column[start:end] for column in columns),
        )


def _subjects(decoded: Decoded, rows: pa.Table, batch_of: NDArray[np.int64]) -> pa.Array:
    """Return each row's subject as text."""
    name = decoded.contract.subject_field
    if name is None:
        origins = pa.array([batch.origin for batch in decoded.batches])
        return origins.take(pa.array(batch_of))
    column = rows.column(name).combine_chunks()
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _shards(subjects: pa.Array) -> NDArray[np.int64]:
    encoded = subjects.dictionary_encode()
    of_value = np.array([shard_of(subject) for subject in encoded.dictionary.to_pylist()], dtype=np.int64)
    shards: NDArray[np.int64] = of_value[encoded.indices.to_numpy()]
    return shards


def _columns(
    decoded: Decoded,
    rows: pa.Table,
    batch_of: NDArray[np.int64],
    subjects: pa.Array,
    fields: tuple[str, ...],
    order: NDArray[np.int64],
) -> list[list[object]]:
    """Return seq, event time, subject and then `fields` as lists in the given order of rows."""
    sealed_us = np.array([batch.header.sealed_at_ms * US_PER_MS for batch in decoded.batches], dtype=np.int64)
    times_us = pa.chunked_array([pa.array(sealed_us[batch_of])])
    if decoded.contract.event_time_field is not None:
        times_us = pc.coalesce(rows.column(decoded.contract.event_time_field), times_us)
    at = pa.array(order)
    arrays = [rows.column(SEQ_COLUMN), times_us, subjects, *(rows.column(name) for name in fields)]
    return [array.take(at).to_pylist() for array in arrays]
