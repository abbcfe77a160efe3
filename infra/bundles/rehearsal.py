"""What devices write of themselves: the device's own core over replay files, for dictionaries to be learnt from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec.structs import replace

from contracts import microbatch
from contracts.bundle import Bundle
from contracts.contract import Contract
from edge_agent.adapters import bundle_files
from edge_agent.core.codec.payload import PayloadDecoder
from edge_agent.core.intake import Intake
from edge_agent.core.uplink.owed import LEDGER_INTERVAL_S
from infra.dictionaries import Rows

SAMPLE_RATIO: Final = 0.3  # far more than devices take: a dictionary cannot be judged by what a few files have at 0.005
START_MS: Final = 1_767_571_200_000
FLUSH_MS: Final = round(LEDGER_INTERVAL_S * 1_000)
FLUSH_EVENTS: Final = FLUSH_MS // 1_000  # the files have a reading a second


def rehearse(bundle: Bundle, folder: Path, contract: str, device: str, file: Path) -> dict[str, Rows]:
    """Return rows by contract, as a device sends them that has the bundle in `folder` and the file as its source.

    Only contracts that the device fills itself are named: its ledger, windows, the sample of what does not travel.
    """
    streams = tuple(replace(stream, dropped_sample_ratio=SAMPLE_RATIO) for stream in bundle.streams)
    plan = bundle_files.plan_of(
        replace(bundle, streams=streams), folder, device=device, shard=0, epoch=1, streams={contract: False},
        stores=False,
    )  # fmt: skip
    written = [plan.ledger]
    for stream in plan.streams:
        written += [*stream.windows_contracts, *([stream.sampled] if stream.sampled is not None else [])]
    batches: dict[str, list[bytes]] = {}
    for name, data in _batches(Intake(plan, None), contract, file):
        batches.setdefault(name, []).append(data)
    return {one.id: _rows(one, batches[one.id]) for one in written if one.id in batches}


def _batches(intake: Intake, contract: str, file: Path) -> Iterator[tuple[str, bytes]]:
    lines = file.read_bytes().splitlines()
    for number, first in enumerate(range(0, len(lines), FLUSH_EVENTS)):
        ends = first + FLUSH_EVENTS >= len(lines)
        part = {contract: lines[first : first + FLUSH_EVENTS]}
        group = intake.take(part, START_MS + number * FLUSH_MS, final=(contract,) if ends else (), ends=ends)
        if group is not None:
            yield from ((batch.contract, batch.data) for batch in group.batches)


def _rows(contract: Contract, batches: list[bytes]) -> Rows:
    decoder = PayloadDecoder(contract)
    seqs: list[Any] = []
    columns: dict[str, list[Any]] = {}
    for batch in batches:
        header, payload = microbatch.parse(batch)
        rows = decoder.decode(bytes(payload), header.rows, header.raw_bytes, header.codec)
        seqs.append(rows.seqs)
        for name, column in rows.columns.items():
            columns.setdefault(name, []).append(column)
    return Rows(np.concatenate(seqs), {name: _joined(parts) for name, parts in columns.items()})


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [value for part in parts for value in part]
