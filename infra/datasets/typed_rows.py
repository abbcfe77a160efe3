"""Replay files as typed Arrow rows, the way a table holds them."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from contracts.contract import Contract, FieldType

ARROW_TYPES: Final = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.FLOAT: pa.float32(),
    FieldType.DOUBLE: pa.float64(),
    FieldType.BOOLEAN: pa.bool_(),
    FieldType.TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
}
FILLED_BY_DEVICE: Final = frozenset({"score", "model"})


def read_replay(path: Path, contract: Contract, origin: str) -> pa.Table:
    """Return a replay file as the rows that the table should hold, `seq` being the line number."""
    fields = [(f.name, ARROW_TYPES[f.type]) for f in contract.fields if f.name not in FILLED_BY_DEVICE]
    texts = pa.schema([(n, pa.string() if pa.types.is_timestamp(t) else t) for n, t in fields])
    rows = pj.read_json(path, parse_options=pj.ParseOptions(explicit_schema=texts, unexpected_field_behavior="error"))
    columns: dict[str, Any] = {
        "origin": pa.repeat(origin, rows.num_rows),
        "seq": pa.array(np.arange(rows.num_rows, dtype=np.int64)),
    }
    for name, kind in fields:
        columns[name] = rows[name].cast(kind)
    return pa.table(columns)
