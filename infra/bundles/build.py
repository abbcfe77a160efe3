"""Build the folder that a device is given: contracts, the filter, and a zstd dictionary per contract.

Dictionaries are trained on the rows that devices would send, see `infra.dictionaries`.
"""

import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from contracts.bundle import BUNDLE_FILE, Bundle, Dictionary, Model, Stream, Windows, encode
from contracts.contract import Contract
from contracts.offshoots import pulled_of, sampled_of
from infra.bundles.documents import read_contracts
from infra.bundles.rehearsal import rehearse
from infra.bundles.scoring import require_same_scores, score_rows
from infra.datasets import Manifest
from infra.datasets.replay import write_atomically
from infra.datasets.typed_rows import read_replay
from infra.dictionaries import DictionaryError, Rows, train

log = logging.getLogger(__name__)

FILTERED: Final = "telemetry"
WINDOWED_INTO: Final = "telemetry_windows"
WINDOW_MS: Final = 60_000
REHEARSED_FILES: Final = 4  # devices whose own rows dictionaries are learnt from; more take seconds and save nothing


def build_bundle(folder: Path, model_dir: Path, datasets_dir: Path, manifest: Manifest) -> Bundle:
    """Write a bundle for the shipped contracts into `folder` and return its document."""
    folder.mkdir(parents=True, exist_ok=True)
    contracts = read_contracts()
    model = msgspec.json.decode((model_dir / "model.json").read_bytes(), type=Model)
    for name in (model.file, model.lite_file):
        if name is not None:
            shutil.copyfile(model_dir / name, folder / name)
    windows = Windows(WINDOWED_INTO, WINDOW_MS, model.inputs)
    observed = {entry.contract for entry in manifest.files if entry.role == "replay"}
    filtered = next(contract for contract in contracts if contract.id == FILTERED)
    bundle = Bundle(
        version=model.version,
        contracts=(*contracts, sampled_of(filtered), *(pulled_of(c) for c in contracts if c.id in observed)),
        streams=(Stream(FILTERED, model=model.id, windows=(windows,)),),
        models=(model,),
    )
    parts = _sent_rows(bundle, folder, datasets_dir, manifest)
    found = (_dictionary(folder, bundle.contract(name), rows) for name, rows in parts.items())
    bundle = replace(bundle, dictionaries=tuple(dictionary for dictionary in found if dictionary is not None))
    write_atomically(folder / BUNDLE_FILE, encode(bundle))
    return bundle


def _sent_rows(bundle: Bundle, folder: Path, datasets_dir: Path, manifest: Manifest) -> dict[str, list[Rows]]:
    """Return rows by contract and device: those of the replay files that travel, and what devices write themselves."""
    found: dict[str, list[Rows]] = {}
    for entry in manifest.files:
        if entry.role != "replay" or entry.contract is None:
            continue
        rows = read_replay(datasets_dir / entry.path, bundle.contract(entry.contract), str(entry.device))
        if entry.contract == FILTERED:
            rows = _kept(rows, bundle.models[0], folder)
        found.setdefault(entry.contract, []).append(_rows(rows))
    rehearsed = [entry for entry in manifest.files if (entry.role, entry.contract) == ("replay", FILTERED)]
    for entry in rehearsed[:REHEARSED_FILES]:
        own = rehearse(bundle, folder, FILTERED, str(entry.device), datasets_dir / entry.path)
        for name, part in own.items():
            found.setdefault(name, []).append(part)
    return found


def _dictionary(folder: Path, contract: Contract, parts: list[Rows]) -> Dictionary | None:
    """Train and write a contract's dictionary; None when its rows are too few for one, or it would not help."""
    try:
        trained = train(contract, parts)
    except DictionaryError as error:
        log.info("no dictionary: %s", error)
        return None
    name = f"{contract.id}.zdict"
    write_atomically(folder / name, trained.data)
    return Dictionary(trained.id, contract.id, name, hashlib.sha256(trained.data).hexdigest())


def _kept(rows: pa.Table, model: Model, folder: Path) -> pa.Table:
    """Return the rows that a device would send, with the columns that it fills."""
    scores = score_rows(rows, model, folder)
    require_same_scores(rows, model, folder, scores)
    names = pa.repeat(f"{model.id}@{model.version}", rows.num_rows)
    filled = rows.append_column("score", pa.array(scores)).append_column("model", names)
    return filled.filter(pa.array(scores >= np.float32(model.threshold)))


def _rows(rows: pa.Table) -> Rows:
    columns = {name: _column(rows[name]) for name in rows.column_names if name not in ("origin", "seq")}
    return Rows(rows["seq"].to_numpy(), columns)


def _column(values: pa.ChunkedArray) -> Any:
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.int64()).to_numpy()
    if values.null_count or pa.types.is_string(values.type):
        return values.to_pylist()
    return np.ascontiguousarray(values.to_numpy())
