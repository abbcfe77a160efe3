"""What looks have found, as rows of `data_quality` in micro-batches. Pure.

The process publishes like any origin, straight to the log, since nothing lies between the two that could ask who it is.
Its epoch is the second it started in: a new process is a new stream, and nothing about numbers needs to be remembered.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import zstandard
from msgspec import Struct

from contracts.contract import SEQ_COLUMN, Contract, fingerprint
from contracts.microbatch import Header, seal
from contracts.wire import columns
from lakehouse.quality.expectations import Expectation, Outcome, Severity
from lakehouse.schema import wire_schema

ORIGIN: Final = "lake-quality"
TABLE: Final = "data_quality"
SUM: Final = "*"
ROWS_PER_BATCH: Final = 500
WORDS_CHARS_MAX: Final = 2_048
EXAMPLE_CHARS_MAX: Final = 120


class Look(Struct, frozen=True):
    """One look at a table. `scope` is `committed` or `whole`."""

    table: str
    contract: str
    version: str
    scope: str
    at_ms: int
    snapshot_id: int | None
    rows_committed: int
    rows_checked: int
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Rules that were not met, hints among them."""
        return tuple(one for one in self.outcomes if not one.met)

    @property
    def wrong(self) -> tuple[Outcome, ...]:
        """Rules that were not met and are no hints."""
        return tuple(one for one in self.failed if one.expectation.severity is Severity.ERROR)


def discreet(look: Look, contract: Contract) -> Look:
    """Return a look that shows no value of a personal field."""
    personal = {field.name for field in contract.fields if field.classification == "personal"} | {"origin"}
    outcomes = tuple(
        msgspec.structs.replace(one, examples=()) if personal.intersection(one.expectation.columns) else one
        for one in look.outcomes
    )
    return msgspec.structs.replace(look, outcomes=outcomes)


def rows(looks: Sequence[Look]) -> list[dict[str, object]]:
    """Return a row per look, one per rule that was not met, and of whole tables one per rule."""
    found: list[dict[str, object]] = []
    for look in looks:
        shown = look.outcomes if look.scope == "whole" else look.failed
        found += [_sum(look), *(_row(look, one) for one in shown)]
    return found


def batches(
    found: Sequence[dict[str, object]], contract: Contract, epoch: int, first_seq: int, now_ms: int
) -> list[bytes]:
    """Return rows as sealed micro-batches with sequence numbers from `first_seq` on."""
    made: list[bytes] = []
    for at in range(0, len(found), ROWS_PER_BATCH):
        part = [row | {SEQ_COLUMN: first_seq + at + n} for n, row in enumerate(found[at : at + ROWS_PER_BATCH])]
        raw = _payload(part, contract)
        header = Header(
            fingerprint=fingerprint(contract),
            epoch=epoch,
            first_seq=first_seq + at,
            span=len(part),
            rows=len(part),
            raw_bytes=len(raw),
            sealed_at_ms=now_ms,
        )
        made.append(seal(header, zstandard.ZstdCompressor().compress(raw)))
    return made


def _payload(part: Sequence[dict[str, object]], contract: Contract) -> bytes:
    table = pa.Table.from_pylist(list(part), schema=wire_schema(contract)).combine_chunks()
    for at, column in enumerate(columns(contract)):
        if column.difference:
            values = np.asarray(table.column(at)).astype(np.int64)
            differences = pa.array(np.diff(values, prepend=np.int64(0)), table.schema.field(at).type)
            table = table.set_column(at, column.name, differences)
    message: bytes = table.combine_chunks().to_batches()[0].serialize().to_pybytes()
    return message


def _sum(look: Look) -> dict[str, object]:
    worst = max((one.failed for one in look.failed), default=0)
    wrong = [one.expectation.rule for one in look.wrong]
    return _common(look) | {
        "rule": SUM,
        "expected_by": "contract",
        "severity": "error",
        "met": not wrong,
        "rows_checked": look.rows_checked,
        "rows_failed": worst,
        "rules": len(look.outcomes),
        "words": (f"not met: {', '.join(wrong)}" if wrong else "all rules are met")[:WORDS_CHARS_MAX],
        "examples": "[]",
    }


def _row(look: Look, one: Outcome) -> dict[str, object]:
    expectation: Expectation = one.expectation
    words = f"{expectation.text}; could not be asked: {one.error}" if one.error else expectation.text
    examples = [text[:EXAMPLE_CHARS_MAX] for text in one.examples]
    return _common(look) | {
        "rule": expectation.rule,
        "expected_by": expectation.source.value,
        "severity": expectation.severity.value,
        "met": one.met,
        "rows_checked": one.rows,
        "rows_failed": one.failed,
        "rules": 1,
        "words": words[:WORDS_CHARS_MAX],
        "examples": msgspec.json.encode(examples).decode(),
    }


def _common(look: Look) -> dict[str, object]:
    return {
        "checked_at": look.at_ms * 1_000,
        "checked_table": look.table,
        "contract": look.contract,
        "checked_version": look.version,
        "scope": look.scope,
        "snapshot_id": look.snapshot_id,
        "rows_committed": look.rows_committed,
    }
