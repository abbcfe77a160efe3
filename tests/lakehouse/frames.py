"""A frame factory: contracts and sound or broken micro-batches, made without the edge agent."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
import zstandard
from msgspec.structs import replace

from contracts.contract import Contract, Field, FieldType, fingerprint
from contracts.decisions import Decision, EventId
from contracts.microbatch import Header, seal
from contracts.odcs import contract_of
from contracts.wire import columns
from lakehouse.schema import wire_schema

DOCUMENTS = pathlib.Path(__file__).parents[2] / "contracts" / "documents"
CONTRACTS: dict[str, Contract] = {
    path.name.split(".")[0]: contract_of(yaml.safe_load(path.read_text())) for path in sorted(DOCUMENTS.glob("*.yaml"))
}
START_US = 1_760_000_000_000_000
SEALED_AT_MS = 1_760_000_100_000


def telemetry(seqs: Sequence[int], **overrides: Any) -> list[dict[str, Any]]:
    """Telemetry rows whose values follow from their seq."""
    return [
        {
            "seq": seq,
            "asset_id": f"asset-{seq % 5}",
            "occurred_at": START_US + seq * 1_000_000,
            **{f"f{n}": (seq * n) % 1_000 - 500 for n in range(1, 10)},
            "score": 0.5 if seq % 2 else None,
            "model": "filter@1",
        }
        | overrides
        for seq in seqs
    ]


def clicks(seqs: Sequence[int], **overrides: Any) -> list[dict[str, Any]]:
    """Click rows whose values follow from their seq."""
    return [
        {
            "seq": seq,
            "user_id": f"customer-{seq % 3}",
            "session_id": f"visit-{seq // 4}",
            "event": "download",
            "object": "emc-test-report.pdf",
            "dwell_s": 1.5 * seq,
            "platform": None,
            "acquisition_channel": "mail",
            "occurred_at": START_US + seq * 250_000,
        }
        | overrides
        for seq in seqs
    ]


def payload(contract: Contract, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The IPC record batch message of rows, differences taken, uncompressed."""
    table = pa.Table.from_pylist(list(rows), schema=wire_schema(contract)).combine_chunks()
    for at, column in enumerate(columns(contract)):
        if column.difference:
            values = np.asarray(table.column(at).fill_null(0)).astype(np.int64)
            differences = np.diff(values, prepend=np.int64(0)).astype(table.schema.field(at).type.to_pandas_dtype())
            nulls = np.asarray(table.column(at).is_null())
            table = table.set_column(at, column.name, pa.array(differences, table.schema.field(at).type, mask=nulls))
    (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    message: bytes = batch.serialize().to_pybytes()
    return message


def frame(
    contract: Contract,
    rows: Sequence[Mapping[str, Any]],
    first_seq: int | None = None,
    span: int | None = None,
    epoch: int = 1,
    dictionary: zstandard.ZstdCompressionDict | None = None,
    raw: bytes | None = None,
    count: int | None = None,
    sealed_at_ms: int = SEALED_AT_MS,
) -> bytes:
    """A sealed batch. `raw` and `count` replace what the payload would be and how many rows the header claims."""
    first = first_seq if first_seq is not None else rows[0]["seq"]
    last = rows[-1]["seq"] + 1 if rows else first + 1
    body = raw if raw is not None else payload(contract, rows)
    packed = zstandard.ZstdCompressor(level=3, dict_data=dictionary).compress(body)
    header = Header(
        fingerprint=fingerprint(contract),
        epoch=epoch,
        first_seq=first,
        span=span if span is not None else last - first,
        rows=len(rows) if count is None else count,
        raw_bytes=len(body),
        sealed_at_ms=sealed_at_ms,
        dictionary_id=dictionary.dict_id() if dictionary is not None else 0,
    )
    return seal(header, packed)


def decision(number: int) -> Decision:
    """A decision whose values follow from its number."""
    return Decision(
        f"{number:032x}", "default", "rule", 1, "customer", f"customer-{number}", "sample application", "call",
        1_760_000_000_000_000, 1_760_000_000_000, 1_760_000_000_050, (EventId("clicks", "collector-1", 1, number),),
        "downloaded, stayed, printed",
    )  # fmt: skip


def evolved(contract: Contract, drop: str | None = None) -> Contract:
    """A next version with one field more and one less."""
    kept = tuple(f for f in contract.fields if f.name != drop)
    humidity = Field(max(f.id for f in contract.fields) + 1, "humidity", FieldType.DOUBLE)
    return replace(contract, version="1.1.0", fields=(*kept, humidity))
