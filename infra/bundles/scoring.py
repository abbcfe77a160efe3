"""Score rows as a device does: the same model, in chunks of the same constant shape."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from contracts import lite_model
from contracts.bundle import Model
from contracts.errors import ContractError
from edge_agent.lite.model import scorer_of

Scores: TypeAlias = NDArray[np.float32]


def score_rows(rows: pa.Table, model: Model, folder: Path) -> Scores:
    """Return one score per row; `folder` holds the model's file."""
    session = onnxruntime.InferenceSession(folder / model.file, providers=["CPUExecutionProvider"])
    values = _values(rows, model)
    padded = np.zeros((-(-len(values) // model.chunk_rows) * model.chunk_rows, len(model.inputs)), np.float32)
    padded[: len(values)] = values
    chunks = padded.reshape(-1, model.chunk_rows, len(model.inputs))
    scores = [np.ravel(session.run(["score"], {"rows": chunk})[0]) for chunk in chunks]
    return np.concatenate(scores)[: len(values)]


def require_same_scores(rows: pa.Table, model: Model, folder: Path, scores: Scores) -> None:
    """Raise ContractError when the model's lite form, if it has one, gives other scores than these, in any bit."""
    if model.lite_file is None:
        return
    lite = scorer_of(lite_model.decode((folder / model.lite_file).read_bytes()))
    found = np.array(lite(_values(rows, model).tolist()), dtype=np.float32)
    # What is not a number has many bit patterns and one meaning.
    different = int(
        np.count_nonzero((found.view(np.int32) != scores.view(np.int32)) & ~(np.isnan(found) & np.isnan(scores)))
    )
    if different:
        raise ContractError(
            f"model {model.id}@{model.version}: {model.lite_file} and {model.file} differ in {different} of "
            f"{len(scores)} scores: make both from the same model again"
        )


def _values(rows: pa.Table, model: Model) -> NDArray[Any]:
    values: NDArray[Any] = np.column_stack([rows[name].to_numpy() for name in model.inputs]).astype(np.float32)
    return values
