"""Writes micro-batches as a device would, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
import zstandard

from contracts import microbatch, odcs, wire
from contracts.contract import SEQ_COLUMN, Contract, fingerprint
from flink_jobs.triggers.preselect.decoding import ARROW_TYPES

DOCUMENTS = Path(__file__).parents[2] / "contracts" / "documents"


def contract_named(name: str) -> Contract:
    """Return a shipped contract."""
    return odcs.contract_of(yaml.safe_load((DOCUMENTS / f"{name}.odcs.yaml").read_text()))


def micro_batch(
    contract: Contract,
    rows: Sequence[Mapping[str, Any]],
    *,
    first_seq: int = 0,
    epoch: int = 1,
    sealed_at_ms: int = 0,
    dictionary: zstandard.ZstdCompressionDict | None = None,
) -> bytes:
    """Return the bytes of a batch of rows, numbered from `first_seq`; a missing field is null."""
    arrays = []
    for column in wire.columns(contract):
        own = range(first_seq, first_seq + len(rows)) if column.name == SEQ_COLUMN else None
        values = list(own) if own is not None else [row.get(column.name) for row in rows]
        if column.difference:
            values = [value - before for value, before in zip(values, [0, *values[:-1]], strict=True)]
        arrays.append(pa.array(values, ARROW_TYPES[column.type]))
    fields = [pa.field(c.name, ARROW_TYPES[c.type], not c.required) for c in wire.columns(contract)]
    raw = pa.record_batch(arrays, schema=pa.schema(fields)).serialize().to_pybytes()
    header = microbatch.Header(
        fingerprint=fingerprint(contract),
        epoch=epoch,
        first_seq=first_seq,
        span=len(rows),
        rows=len(rows),
        raw_bytes=len(raw),
        sealed_at_ms=sealed_at_ms,
        dictionary_id=dictionary.dict_id() if dictionary is not None else 0,
    )
    return microbatch.seal(header, zstandard.ZstdCompressor(dict_data=dictionary).compress(raw))
