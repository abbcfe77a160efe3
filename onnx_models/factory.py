"""Makes the telemetry filter from a sensor record: fit, choose, export, check, measure, describe.

    1. fit         on the first part of the training rows
    2. export      the forest becomes ONNX bytes
    3. choose      the threshold, from the runtime's scores of the validation rows
    4. check       runtime, reference evaluator and forest agree on every hold-out row
    5. measure     recall and drop ratio of the hold-out rows; their labels are read here for the first time
    6. write       model, its lite form, manifest, card

The threshold is chosen after the export, on the very scores that a device will see.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from msgspec import Struct
from sklearn.ensemble import RandomForestRegressor

from contracts.bundle import Model
from contracts.lite_model import encode
from onnx_models.card import MODEL_ID, Agreement, ModelCard, encode_document, model_version, render_card
from onnx_models.dataset import SENSOR_COLUMNS, Rows, read_sensor_record, split_rows
from onnx_models.evaluation import evaluate
from onnx_models.export import (
    CHUNK_ROWS,
    Scores,
    export_forest,
    require_agreement,
    score_with_reference,
    score_with_runtime,
)
from onnx_models.lite import lite_model_of
from onnx_models.training import ForestOptions, choose_threshold, fit_forest, score_with_small_tree

DEFAULT_SEED: Final = 20260
MODEL_FILE: Final = "filter.onnx"
LITE_FILE: Final = "filter.lite.json"
MANIFEST_FILE: Final = "model.json"
CARD_JSON_FILE: Final = "MODEL_CARD.json"
CARD_FILE: Final = "MODEL_CARD.md"
_LIBRARIES: Final = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy")


class TrainedFilter(Struct, frozen=True):
    """A checked model: its ONNX bytes, their lite form, and the card, whose manifest names both by their hash."""

    model: bytes
    lite: bytes
    card: ModelCard


def build_filter(data: Path, seed: int = DEFAULT_SEED, options: ForestOptions | None = None) -> TrainedFilter:
    """Train on the first 70 % of the record at `data` and measure on the rest.

    Raises DatasetError, ModelTooWeakError, ExportMismatchError or UnsupportedGraphError; writes nothing.
    """
    chosen = options or ForestOptions()
    record = read_sensor_record(data)
    split = split_rows(len(record.labels))
    fit_rows, fit_labels = record.rows[: split.fit_end], record.labels[: split.fit_end]
    forest = fit_forest(fit_rows, fit_labels, chosen, seed)  # Step 1.
    model = export_forest(forest)  # Step 2.
    scores = score_with_runtime(model, record.rows)
    validation = slice(split.fit_end, split.training_end)
    threshold = choose_threshold(scores[validation], record.labels[validation], chosen)  # Step 3.
    holdout = slice(split.training_end, split.row_count)
    agreement = _check(model, forest, record.rows[holdout], scores[holdout], threshold)  # Step 4.
    lite = encode(lite_model_of(model))
    card = ModelCard(
        manifest=_manifest(model, lite, threshold),
        size_bytes=len(model),
        data_file=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        split=split,
        seed=seed,
        tree_count=chosen.tree_count,
        node_count=sum(tree.tree_.node_count for tree in forest.estimators_),
        validation=evaluate(scores[validation], record.labels[validation], threshold),
        holdout=evaluate(scores[holdout], record.labels[holdout], threshold),  # Step 5.
        small_tree_holdout=evaluate(
            score_with_small_tree(fit_rows, fit_labels, record.rows[holdout]), record.labels[holdout], 0.5
        ),
        anomaly_share_by_tenth=tuple(float(tenth.mean()) for tenth in np.array_split(record.labels, 10)),
        agreement=agreement,
        opsets=_opsets(model),
        library_versions={library: version(library) for library in _LIBRARIES},
    )
    return TrainedFilter(model=model, lite=lite, card=card)


def write_filter(trained: TrainedFilter, out: Path) -> None:
    """Write model, manifest and card into `out` (created if absent).

    The manifest comes last: who finds it finds the model that it names.
    """
    out.mkdir(parents=True, exist_ok=True)
    files: Mapping[str, bytes] = {
        MODEL_FILE: trained.model,
        LITE_FILE: trained.lite,
        CARD_JSON_FILE: encode_document(trained.card),
        CARD_FILE: render_card(trained.card).encode(),
        MANIFEST_FILE: encode_document(trained.card.manifest),
    }
    for name, content in files.items():
        partial = out / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(out / name)


def _check(model: bytes, forest: RandomForestRegressor, rows: Rows, scores: Scores, threshold: float) -> Agreement:
    reference = score_with_reference(model, rows)
    trained = np.asarray(forest.predict(rows), dtype=np.float32)
    return Agreement(
        rows=len(rows),
        runtime_against_reference=require_agreement("onnxruntime against reference", scores, reference, threshold),
        runtime_against_trained=require_agreement("onnxruntime against forest", scores, trained, threshold),
    )


def _manifest(model: bytes, lite: bytes, threshold: float) -> Model:
    digest = hashlib.sha256(model).hexdigest()
    return Model(
        id=MODEL_ID,
        version=model_version(digest),
        file=MODEL_FILE,
        sha256=digest,
        inputs=SENSOR_COLUMNS,
        threshold=threshold,
        chunk_rows=CHUNK_ROWS,
        lite_file=LITE_FILE,
        lite_sha256=hashlib.sha256(lite).hexdigest(),
    )


def _opsets(model: bytes) -> dict[str, int]:
    imports = onnx.load_from_string(model).opset_import
    return {entry.domain or "ai.onnx": entry.version for entry in sorted(imports, key=lambda entry: entry.domain)}
