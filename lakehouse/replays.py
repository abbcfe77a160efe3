"""Rows that go from the quarantine back to their table: as micro-batches of one row, each once. Pure.

A row keeps its identity, but its sequence number is accounted for since the day it was refused. So the lake accounts
for what is put back in a stream of its own beside the origin's, by the same range arithmetic: however often a row is
published, its table takes it once. A row that is refused again is not accounted for: its entry in the quarantine is
still there, and the next fix can have it.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import zstandard
from msgspec import Struct

from contracts.contract import SEQ_COLUMN, Contract, fingerprint
from contracts.errors import BatchError
from contracts.microbatch import Flag, Header, parse, seal
from lakehouse.checks import Batches, Index, refusals
from lakehouse.decode import Arrived, Decoded
from lakehouse.errors import OriginalError
from lakehouse.originals import row_of, row_of_device
from lakehouse.schema import wire_schema

# No origin has a tilde in its name, so none can publish into such a stream.
SUFFIX: Final = "~replayed"
_REPLAYED: Final = int(Flag.REPLAYED)  # asked of every batch, and the arithmetic of flags is slow
BY_DEVICE: Final = "device"


class Entry(Struct, frozen=True):
    """One row of the quarantine: who refused which event of which contract version, by which rule."""

    contract: str
    refused_version: str
    origin: str
    refused_epoch: int
    refused_seq: int
    refused_by: str
    rule: str
    original: str
    sealed_at_ms: int


class PutBack(Struct, frozen=True):
    """What can be done with an entry: its micro-batch, or why there is none (`rule`, or a reason in words)."""

    entry: Entry
    batch: bytes | None
    still: str = ""


def is_replayed(batch: Arrived) -> bool:
    """Whether a batch comes from the quarantine and not from its origin."""
    return bool(batch.header.flags & _REPLAYED)


def is_put_back(value: bytes) -> bool:
    """Whether a message's value is a sound batch that comes from the quarantine."""
    try:
        return bool(parse(value)[0].flags & Flag.REPLAYED)
    except BatchError:
        return False


def replay_origin(origin: str) -> str:
    """Return the name under which what is put back of an origin is accounted for."""
    return f"{origin}{SUFFIX}"


def stream_origin(batch: Arrived) -> str:
    """Return the name under which a batch's sequence numbers are accounted for."""
    return replay_origin(batch.origin) if is_replayed(batch) else batch.origin


def numbers_of(rows: pa.Table) -> dict[tuple[str, int], Index]:
    """Return the sequence numbers of a table's rows by origin and epoch, ascending."""
    origin = rows["origin"].combine_chunks().dictionary_encode()
    codes, epoch = origin.indices.to_numpy(zero_copy_only=False), np.asarray(rows["epoch"])
    seq = np.asarray(rows[SEQ_COLUMN])
    found: dict[tuple[str, int], Index] = {}
    for code, at in {(int(c), int(e)) for c, e in zip(codes, epoch, strict=True)}:
        found[origin.dictionary[code].as_py(), at] = np.unique(seq[(codes == code) & (epoch == at)])
    return found


def without_refused(decoded: Decoded, contract: Contract) -> Decoded:
    """Leave out the batches of rows that are refused again; batches that come from their origin stay as they are."""
    replayed = np.array([is_replayed(batch) for batch in decoded.batches], dtype=np.bool_)
    if not replayed.any():
        return decoded
    refused, _ = refusals(decoded.rows, contract, batches_of(decoded))
    broken = np.zeros(len(replayed), dtype=np.bool_)
    broken[decoded.batch_of_row[refused]] = True
    broken &= replayed
    if not broken.any():
        return decoded
    number = np.cumsum(~broken) - 1
    keep = ~broken[decoded.batch_of_row]
    sound = tuple(batch for batch, out in zip(decoded.batches, broken, strict=True) if not out)
    return Decoded(sound, decoded.rows.filter(pa.array(keep)), number[decoded.batch_of_row[keep]])


def batches_of(decoded: Decoded) -> Batches:
    """Return what the checks ask of the batches."""
    sealed_us = np.array([batch.header.sealed_at_ms * 1_000 for batch in decoded.batches], dtype=np.int64)
    return Batches(decoded.batch_of_row, sealed_us)


def put_back(entry: Entry, versions: Sequence[Contract]) -> PutBack:
    """Return the micro-batch of an entry for the newest version of its contract, checked as the lake will check it.

    `versions`: every published version of the entry's contract, newest last.
    """
    newest = versions[-1]
    try:
        row = _row(entry, versions)
    except OriginalError as error:
        return PutBack(entry, None, str(error))
    sealing = Batches(np.zeros(1, np.int64), np.array([entry.sealed_at_ms * 1_000], np.int64))
    _, rules = refusals(row, newest, sealing)
    return PutBack(entry, None, rules[0]) if rules else PutBack(entry, _batch(row, entry, newest))


def _row(entry: Entry, versions: Sequence[Contract]) -> pa.Table:
    newest = versions[-1]
    if entry.refused_by == BY_DEVICE:
        return row_of_device(entry.original, entry.refused_seq, newest)
    refusing = next((one for one in reversed(versions) if one.version == entry.refused_version), None)
    if refusing is None:
        raise OriginalError(
            f"contract {entry.contract}: version {entry.refused_version} is no longer published: publish it again"
        )
    row = row_of(entry.original, refusing)
    return row if fingerprint(refusing) == fingerprint(newest) else _in_version(row, refusing, newest)


def _in_version(row: pa.Table, written: Contract, newest: Contract) -> pa.Table:
    """Return a row by another version: fields keep their ids, whatever they are called."""
    names = {field.id: field.name for field in written.fields}
    schema = wire_schema(newest)
    arrays: list[pa.ChunkedArray] = [row.column(SEQ_COLUMN)]
    for field in newest.fields:
        kind = schema.field(field.name).type
        try:
            arrays.append(row.column(names[field.id]).cast(kind) if field.id in names else pa.nulls(1, kind))
        except pa.ArrowException as error:
            raise OriginalError(f"field {field.name}: expected {field.type.value}: {error}") from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _batch(row: pa.Table, entry: Entry, contract: Contract) -> bytes:
    """Of one row: its differences to the row before are its values."""
    raw: bytes = row.combine_chunks().to_batches()[0].serialize().to_pybytes()
    header = Header(
        fingerprint=fingerprint(contract),
        epoch=entry.refused_epoch,
        first_seq=entry.refused_seq,
        span=1,
        rows=1,
        raw_bytes=len(raw),
        sealed_at_ms=entry.sealed_at_ms,
        flags=int(Flag.REPLAYED),
    )
    return seal(header, zstandard.ZstdCompressor().compress(raw))
