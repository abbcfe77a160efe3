"""Rows as tables take them: system columns in front, refused rows as quarantine rows, decisions as rows. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa

from contracts.contract import SEQ_COLUMN, Contract
from contracts.decisions import Decision
from contracts.ranges import RangeSet
from contracts.topics import DECISIONS
from lakehouse.checks import Mask
from lakehouse.decode import Decoded
from lakehouse.originals import texts
from lakehouse.schema import table_schema

QUARANTINE: Final = "quarantine"
DECISIONS_TABLE: Final = "decisions"
REFUSED_BY: Final = "lake"


def new_rows(decoded: Decoded, gaps: Sequence[RangeSet]) -> Mask:
    """Return which rows lie in the new parts of their batch's range; `gaps[i]` belongs to `batches[i]`."""
    whole = np.array(
        [gap == ((b.header.first_seq, b.header.end_seq),) for b, gap in zip(decoded.batches, gaps, strict=True)],
        dtype=np.bool_,
    )
    keep: Mask = whole[decoded.batch_of_row]
    for at, gap in enumerate(gaps):
        if gap and not whole[at]:
            seq = np.asarray(decoded.rows.column(SEQ_COLUMN))
            own = decoded.batch_of_row == at
            for first, end in gap:
                keep |= own & (seq >= first) & (seq < end)
    return keep


def select(decoded: Decoded, keep: Mask) -> Decoded:
    """Return the same batches with only some of their rows."""
    if keep.all():
        return decoded
    return Decoded(decoded.batches, decoded.rows.filter(pa.array(keep)), decoded.batch_of_row[keep])


def table_rows(decoded: Decoded, contract: Contract) -> pa.Table:
    """Return rows in the table's columns and types."""
    schema = table_schema(contract)
    own = [decoded.rows.column(f.name).cast(schema.field(f.name).type) for f in contract.fields]
    columns = [*_identity(decoded), pa.repeat(pa.scalar(contract.version), decoded.rows.num_rows), _sealed(decoded)]
    columns.insert(2, decoded.rows.column(SEQ_COLUMN))
    return pa.Table.from_arrays([*columns, *own], schema=schema)


def quarantine_rows(refused: Decoded, rules: Sequence[str], contract: Contract, quarantine: Contract) -> pa.Table:
    """Return refused rows of a contract as rows of the quarantine; `rules[i]` says why row i was refused."""
    count = refused.rows.num_rows
    origin, epoch = _identity(refused)
    seq = refused.rows.column(SEQ_COLUMN)
    columns = {
        "origin": origin,
        "epoch": epoch,
        SEQ_COLUMN: seq,
        "contract_version": pa.repeat(pa.scalar(quarantine.version), count),
        "sealed_at": _sealed(refused),
        "contract": pa.repeat(pa.scalar(contract.id), count),
        "refused_version": pa.repeat(pa.scalar(contract.version), count),
        "refused_epoch": epoch,
        "refused_seq": seq,
        "refused_by": pa.repeat(pa.scalar(REFUSED_BY), count),
        "rule": pa.array(rules, pa.string()),
        "original": pa.array(texts(refused.rows, contract), pa.string()),
    }
    schema = table_schema(quarantine)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def decision_rows(found: Sequence[tuple[int, int, Decision]], contract: Contract) -> pa.Table:
    """Return decisions as rows; each comes as (partition, offset, decision), which become epoch and seq."""
    rows = [
        {
            "origin": DECISIONS,
            "epoch": partition,
            SEQ_COLUMN: offset,
            "contract_version": contract.version,
            "sealed_at": decision.sealed_at_ms * 1_000,
            "decision_id": decision.id,
            "tenant": decision.tenant,
            "rule_id": decision.rule_id,
            "rule_version": decision.rule_version,
            "subject_kind": decision.subject_kind,
            "subject": decision.subject,
            "intent": decision.intent,
            "action": decision.action,
            "event_time": decision.event_time_us,
            "decided_at": decision.decided_at_ms * 1_000,
            "events": msgspec.json.encode(decision.events).decode(),
            "because": decision.because,
            "standing": decision.standing,
            "priority": decision.priority,
            "audience": decision.audience,
        }
        for partition, offset, decision in found
    ]
    return pa.Table.from_pylist(rows, schema=table_schema(contract))


def _identity(decoded: Decoded) -> list[pa.Array]:
    owner = decoded.batch_of_row
    origins = pa.array([b.origin for b in decoded.batches], pa.string())
    epochs = np.array([b.header.epoch for b in decoded.batches], dtype=np.int64)
    return [origins.take(pa.array(owner)), pa.array(epochs[owner])]


def _sealed(decoded: Decoded) -> pa.Array:
    sealed_us = np.array([b.header.sealed_at_ms * 1_000 for b in decoded.batches], dtype=np.int64)
    return pa.array(sealed_us[decoded.batch_of_row]).cast(pa.timestamp("us", tz="UTC"))
