"""Packed rows of many batches as one Arrow table. Pure."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pyarrow as pa

from contracts import packing
from contracts.contract import Contract
from contracts.errors import BatchFormatError, ContractError
from contracts.packing import Plan
from contracts.unpacking import Numbers, Texts, unpack
from lakehouse.errors import PayloadError
from lakehouse.schema import wire_schema

PLANS_MAX: Final = 256  # dictionaries in use at a time; a plan is some KB
TEXT_BYTES_MAX: Final = 2**31 - 1  # of one column; Arrow's utf8 has 32-bit offsets


def read(raws: Sequence[bytes], rows: Sequence[int], contract: Contract, dictionary: bytes) -> pa.Table:
    """Return the rows of batches that were packed with one dictionary. Raises PayloadError when one cannot be read."""
    schema = wire_schema(contract)
    try:
        found = unpack(raws, rows, _plan(contract, dictionary), contract)
        arrays = [_array(found[field.name], field.type) for field in schema]
    except (BatchFormatError, ContractError, pa.ArrowException) as error:
        raise PayloadError("bad_payload", f"expected packed rows: {error}") from error
    return pa.table(arrays, schema=schema)


@lru_cache(PLANS_MAX)
def _plan(contract: Contract, dictionary: bytes) -> Plan:
    return packing.plan_of(contract, dictionary)


def _array(column: Numbers | Texts, kind: pa.DataType) -> Any:
    if isinstance(column, Numbers):
        return pa.array(column.values, kind, mask=None if column.valid is None else ~column.valid)
    if len(column.data) > TEXT_BYTES_MAX:
        raise BatchFormatError(f"{len(column.data)} bytes of text in one column, at most {TEXT_BYTES_MAX}")
    offsets = pa.py_buffer(column.offsets.astype(np.int32))
    texts = pa.StringArray.from_buffers(len(column.offsets) - 1, offsets, pa.py_buffer(column.data))
    # They come from a device; Arrow's kernels trust them, so they are proved here once.
    texts.validate(full=True)
    return texts.take(pa.array(column.index, mask=column.index < 0))
