"""Writes all data sets into one folder, with a manifest that says what each file is.

<contract>/<device>.jsonl   replay files
truth/telemetry.jsonl       label and row of every reading, one `ReadingTruth` a line
truth/clicks.jsonl          what the rules must say of every scripted user, one `VisitTruth` a line
crm/*.csv                   the CRM's records
manifest.json               every file with rows, digest and provenance; written last
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from infra.datasets.clicks import read_clicks, read_user_ids
from infra.datasets.crm import TABLES, generate_crm
from infra.datasets.errors import FractionError
from infra.datasets.purchases import customer_id, read_customer_numbers, read_purchases
from infra.datasets.replay import Provenance, Replay, json_lines, write_atomically
from infra.datasets.service_history import generate_history
from infra.datasets.telemetry import read_telemetry

DEFAULT_SEED: Final = 20260
# A fixed moment, so that two runs write the same bytes.
DEFAULT_START: Final = datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
MANIFEST_FILE: Final = "manifest.json"
TELEMETRY_TRUTH_FILE: Final = "truth/telemetry.jsonl"
CLICKS_TRUTH_FILE: Final = "truth/clicks.jsonl"


class Sources(Struct, frozen=True):
    """Where the packages' own data files lie."""

    shuttle_csv_gz: Path
    cdnow_purchases_txt: Path
    shop_clicks_csv_gz: Path


class FileEntry(Struct, frozen=True, omit_defaults=True):
    """One written file; `path` is relative to the manifest, `provenance` counts its rows by where they come from."""

    path: str
    role: str  # replay | truth | crm
    rows: int
    size_bytes: int
    sha256: str
    provenance: dict[Provenance, int]
    contract: str | None = None
    device: str | None = None


class Manifest(Struct, frozen=True):
    """Everything that was written, in a fixed order; equal arguments give equal manifests."""

    seed: int
    fraction: float
    telemetry_start: datetime
    files: tuple[FileEntry, ...]


class _File(Struct, frozen=True):
    entry: FileEntry
    content: bytes


def write_datasets(
    sources: Sources,
    out: Path,
    *,
    seed: int = DEFAULT_SEED,
    fraction: float = 1.0,
    start: datetime = DEFAULT_START,
) -> Manifest:
    """Write every data set below `out` and return the manifest.

    `fraction` (above 0, at most 1) thins the replays evenly, whole customers and users at a time; CRM and scripted
    visits stay whole. `start` (with a time zone) is the first telemetry reading and ends the service history.
    Raises FractionError, SourceFileError or onnx_models.DatasetError.
    """
    if not 0.0 < fraction <= 1.0:
        raise FractionError(f"fraction {fraction}: expected above 0 and at most 1")
    start_us = round(start.timestamp()) * 1_000_000
    telemetry, telemetry_truth = read_telemetry(sources.shuttle_csv_gz, start_us, fraction)
    clicks, clicks_truth = read_clicks(sources.shop_clicks_csv_gz, seed, fraction)
    purchases = read_purchases(sources.cdnow_purchases_txt, fraction)
    history = generate_history(start_us, seed, fraction)
    customers = [customer_id(number) for number in read_customer_numbers(sources.cdnow_purchases_txt)]
    customers += read_user_ids(sources.shop_clicks_csv_gz)
    customers += [truth.user_id for truth in clicks_truth]
    files = [_replay_file(replay) for replay in (*telemetry, *purchases, *clicks, *history)]
    files.append(_truth_file(TELEMETRY_TRUTH_FILE, telemetry_truth, Provenance.REAL))
    files.append(_truth_file(CLICKS_TRUTH_FILE, clicks_truth, Provenance.SCRIPTED))
    files.extend(_crm_files(customers, seed))
    for file in files:
        write_atomically(out / file.entry.path, file.content)
    manifest = Manifest(seed, fraction, start, tuple(file.entry for file in files))
    document = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    write_atomically(out / MANIFEST_FILE, document + b"\n")
    return manifest


def read_manifest(out: Path) -> Manifest:
    """Read the manifest that `write_datasets` left in `out`."""
    return msgspec.json.decode((out / MANIFEST_FILE).read_bytes(), type=Manifest)


def _replay_file(replay: Replay) -> _File:
    content = json_lines(replay.events)
    entry = FileEntry(
        path=replay.path,
        role="replay",
        rows=len(replay.events),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        provenance=replay.provenance,
        contract=replay.contract,
        device=replay.device,
    )
    return _File(entry, content)


def _truth_file(path: str, records: Sequence[Struct], provenance: Provenance) -> _File:
    return _plain_file(path, "truth", json_lines(records), len(records), provenance)


def _crm_files(customers: list[str], seed: int) -> list[_File]:
    tables = generate_crm(customers, seed)
    return [
        _plain_file(f"crm/{table}.csv", "crm", content, rows, Provenance.GENERATED)
        for table, (rows, content) in ((table, tables[table]) for table in TABLES)
    ]


def _plain_file(path: str, role: str, content: bytes, rows: int, provenance: Provenance) -> _File:
    entry = FileEntry(path, role, rows, len(content), hashlib.sha256(content).hexdigest(), {provenance: rows})
    return _File(entry, content)
