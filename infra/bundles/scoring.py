"""Score rows as a device does: the same model, in chunks of the same constant shape."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from contracts.bundle import Model

Scores: TypeAlias = NDArray[np.float32]


def score_rows(rows: pa.Table, model: Model, folder: Path) -> Scores:
    """Return one score per row; `folder` holds the model's file."""
    session = onnxruntime.InferenceSession(folder / model.file, providers=["CPUExecutionProvider"])
    values: NDArray[Any] = np.column_stack([rows[name].to_numpy() for name in model.inputs]).astype(np.float32)
    padded = np.zeros((-(-len(values) // model.chunk_rows) * model.chunk_rows, len(model.inputs)), np.float32)
    padded[: len(values)] = values
    chunks = padded.reshape(-1, model.chunk_rows, len(model.inputs))
    scores = [np.ravel(session.run(["score"], {"rows": chunk})[0]) for chunk in chunks]
    return np.concatenate(scores)[: len(values)]
