"""From one tenant's rows to a dictionary that has proved itself on rows it has not seen.

1. Each origin's rows are parted by position: what came first teaches, the last HELD_OUT_SHARE only measures.
2. Personal texts of the teaching rows are masked.
3. Plans are learnt (`planning`) from LOOKED_AT_ROWS; what a plan makes small is tried, not only reckoned: the rows are
   packed by each in batches of the sizes that devices send, zstd trains on those, and the plan that packs the end of
   the teaching rows best stays.
4. In the same way the size of the dictionary is chosen from SIZES_BYTES.
5. The held-out rows are packed with and without it. When that does not make them smaller, there is no dictionary.
"""

import hashlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import numpy as np
import zstandard
from msgspec import Struct

from contracts.contract import SEQ_COLUMN, Contract, FieldType
from contracts.microbatch import HEADER_BYTES
from contracts.packing import Plan, with_plan
from edge_agent.core.codec.packed import Packer
from edge_agent.core.codec.payload import PayloadEncoder
from edge_agent.core.codec.record_batch import Column
from infra.dictionaries.errors import DictionaryError
from infra.dictionaries.masking import masked
from infra.dictionaries.planning import learn

HELD_OUT_SHARE: Final = 0.25
CHOOSING_SHARE: Final = 0.2  # of the teaching rows
ROWS_MIN: Final = 400  # rows; with fewer, what was learnt is chance and what is held out measures nothing
ROWS_MAX: Final = 16_000  # rows that teach; more changes the dictionary little and takes longer
LOOKED_AT_ROWS: Final = (1_000, 4_000)  # few rows show what is near, more what holds for all; neither is always better
SIZES_BYTES: Final = (16_384, 65_536)  # rows of numbers do with the first, of text with the second; more gains nothing
BATCH_ROWS: Final = (2, 10, 40, 100, 10, 50, 200, 20)  # rows per sample, in turn: what flushes of all kinds hold
BATCH_OFFSETS: Final = (0, 3)  # every row is shown twice, in different company
JUDGED_BATCH_ROWS: Final = (10, 50, 200)
ID_BITS: Final = 0x7FFF_FFFF  # ids above are reserved by the zstd format
ID_MIN: Final = 0x8000  # and those below
LEVEL: Final = 19  # what the sample batches are compressed at while zstd counts symbols: the level of the wire
SEED: Final = 20_260_105


class Rows(Struct, frozen=True):
    """Rows of one origin in the order in which it observed them; `columns` as a device has them."""

    seqs: Column
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.seqs)

    def part(self, first: int, end: int) -> "Rows":
        """Return rows [first, end)."""
        return Rows(self.seqs[first:end], {name: values[first:end] for name, values in self.columns.items()})


class Outcome(Struct, frozen=True):
    """Bytes per event of held-out rows in batches of this many, header included, without and with the dictionary."""

    batch_rows: int
    before_bytes: float
    after_bytes: float


class Trained(Struct, frozen=True):
    """A dictionary with its plan, under the id that is inside it, and what it is worth."""

    id: int
    contract: str
    tenant: str
    data: bytes
    outcomes: tuple[Outcome, ...]


def train(contract: Contract, origins: Sequence[Rows], tenant: str = "default") -> Trained:
    """Return a dictionary. Raises DictionaryError when there are too few rows, or when it does not help."""
    total = sum(map(len, origins))
    if total < ROWS_MIN:
        raise DictionaryError(f"dictionary for {contract.id}: expected at least {ROWS_MIN} rows, found {total}")
    cuts = [_cut(rows) for rows in origins]
    share = ROWS_MAX / sum(cuts)
    rng = Random(SEED)
    teaching = [
        Rows(part.seqs, masked(contract, part.columns, rng))
        for rows, cut in zip(origins, cuts, strict=True)
        if len(part := rows.part(max(0, cut - round(cut * share)), cut))
    ]
    number, data = _learn(contract, teaching, tenant)
    outcomes = tuple(judge(contract, held_out(origins), data, JUDGED_BATCH_ROWS))
    if not outcomes or any(outcome.after_bytes >= outcome.before_bytes for outcome in outcomes):
        found = ", ".join(f"{o.before_bytes:.1f} -> {o.after_bytes:.1f} at {o.batch_rows}" for o in outcomes)
        raise DictionaryError(
            f"dictionary for {contract.id}: it does not help: bytes per held-out event {found or 'of none'}: train it "
            "on rows like those that devices send"
        )
    return Trained(number, contract.id, tenant, data, outcomes)


def held_out(origins: Sequence[Rows]) -> list[Rows]:
    """Return the rows that `train` only measures."""
    return [rows.part(_cut(rows), len(rows)) for rows in origins]


def _cut(rows: Rows) -> int:
    return round(len(rows) * (1 - HELD_OUT_SHARE))


def judge(contract: Contract, origins: Sequence[Rows], data: bytes, sizes: Sequence[int]) -> Iterator[Outcome]:
    """Yield, for each batch size of which there are rows enough, what rows cost without and with a dictionary."""
    before, after = PayloadEncoder(contract), PayloadEncoder(contract, data)
    for size in sizes:
        batches = [rows.part(at, at + size) for rows in origins for at in range(0, len(rows) - size + 1, size)]
        if batches:
            yield Outcome(size, _bytes_per_event(before, batches), _bytes_per_event(after, batches))


def _learn(contract: Contract, teaching: Sequence[Rows], tenant: str) -> tuple[int, bytes]:
    # One origin after the other: between two of them a difference is now and then large, as at a batch's beginning.
    joined = _joined(contract, teaching)
    plans = [learn(contract, joined, tenant, rows) for rows in LOOKED_AT_ROWS]
    ends = [round(len(rows) * (1 - CHOOSING_SHARE)) for rows in teaching]
    taught = [rows.part(0, end) for rows, end in zip(teaching, ends, strict=True)]
    choosing = [rows.part(end, len(rows)) for rows, end in zip(teaching, ends, strict=True)]

    def worth(plan: Plan, size_bytes: int) -> float:
        data = with_plan(_trained(contract, _samples(contract, plan, taught), size_bytes, ID_MIN), plan)
        return sum(outcome.after_bytes for outcome in judge(contract, choosing, data, JUDGED_BATCH_ROWS[:2]))

    plan = min(dict.fromkeys(plans), key=lambda plan: worth(plan, SIZES_BYTES[0]))
    best = min(SIZES_BYTES, key=lambda size_bytes: worth(plan, size_bytes))
    samples = _samples(contract, plan, teaching)
    digest = hashlib.sha256(b"".join((tenant.encode(), with_plan(b"", plan), *samples))).digest()
    # The id follows from what it was trained on: the same id can never mean two dictionaries.
    number = int.from_bytes(digest[:4], "big") & ID_BITS | ID_MIN
    return number, with_plan(_trained(contract, samples, best, number), plan)


def _samples(contract: Contract, plan: Plan, origins: Sequence[Rows]) -> list[bytes]:
    packer = Packer(contract, with_plan(b"", plan))
    return [_packed(packer, batch) for rows in origins for batch in _batches(rows)]


def _trained(contract: Contract, samples: Sequence[bytes], size_bytes: int, number: int) -> bytes:
    try:
        return zstandard.train_dictionary(size_bytes, list(samples), dict_id=number, level=LEVEL).as_bytes()
    except zstandard.ZstdError as error:
        raise DictionaryError(
            f"dictionary for {contract.id}: {len(samples)} sample batches teach nothing: {error}: give it more rows"
        ) from error


def _batches(rows: Rows) -> Iterator[Rows]:
    for offset in BATCH_OFFSETS:
        at, turn = offset, 0
        while at < len(rows):
            end = min(len(rows), at + BATCH_ROWS[turn % len(BATCH_ROWS)])
            yield rows.part(at, end)
            at, turn = end, turn + 1


def _packed(packer: Packer, rows: Rows) -> bytes:
    packed = packer.pack({**rows.columns, SEQ_COLUMN: rows.seqs}, len(rows))
    assert packed is not None, "a sample batch is far below the rows that may be packed"
    return packed


def _joined(contract: Contract, origins: Sequence[Rows]) -> dict[str, Any]:
    """Return the rows of all origins one after the other."""
    columns: dict[str, Any] = {SEQ_COLUMN: np.concatenate([np.asarray(rows.seqs) for rows in origins])}
    for field in contract.fields:
        parts = [rows.columns[field.name] for rows in origins if field.name in rows.columns]
        if parts and field.required and field.type is not FieldType.STRING:
            columns[field.name] = np.concatenate([np.asarray(part) for part in parts])
        elif parts:
            columns[field.name] = [value for part in parts for value in part]
    return columns


def _bytes_per_event(encoder: PayloadEncoder, batches: Sequence[Rows]) -> float:
    sent = sum(HEADER_BYTES + len(encoder.encode(rows.seqs, rows.columns).data) for rows in batches)
    return sent / sum(map(len, batches))
