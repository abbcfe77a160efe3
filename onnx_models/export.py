"""Turns a forest into ONNX bytes, and asks two independent evaluators what those bytes say.

The graph takes `rows` float32 [64, 9] and gives `score` float32 [64, 1]. The shape is fixed because a device that
scores constant chunks keeps its memory flat; the last chunk is padded with zeros and the padding's scores are cut off.
"""

from collections.abc import Callable
from typing import Final, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import RandomForestRegressor

from onnx_models.dataset import SENSOR_COLUMNS, Rows
from onnx_models.errors import ExportMismatchError

CHUNK_ROWS: Final = 64
INPUT_NAME: Final = "rows"
OUTPUT_NAME: Final = "score"
GRAPH_NAME: Final = "telemetry_filter"
OPSET: Final = 18
TREE_OPSET: Final = 1
# float32 sums of sixteen votes differ from the trained model's doubles by less than one part in a million.
SCORE_TOLERANCE: Final = 1e-6

Scores = NDArray[np.float32]
Evaluate = Callable[[Rows], NDArray[np.float32]]


def export_forest(forest: RandomForestRegressor) -> bytes:
    """Return the ONNX bytes of a forest over nine sensors; equal forests give equal bytes."""
    shape = [CHUNK_ROWS, len(SENSOR_COLUMNS)]
    model = convert_sklearn(
        forest,
        name=GRAPH_NAME,
        initial_types=[(INPUT_NAME, FloatTensorType(shape))],
        target_opset={"": OPSET, "ai.onnx.ml": TREE_OPSET},
    )
    # Renamed in place: the converter's own way to name an output adds an identity node to every call.
    (node,), (output,) = model.graph.node, model.graph.output
    node.output[0] = OUTPUT_NAME
    output.CopyFrom(onnx.helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, [CHUNK_ROWS, 1]))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def score_with_runtime(model: bytes, rows: Rows) -> Scores:
    """Score rows [n, 9] as a device does, through onnxruntime on one thread; returns [n]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _score_chunks(lambda chunk: session.run([OUTPUT_NAME], {INPUT_NAME: chunk})[0], rows)


def score_with_reference(model: bytes, rows: Rows) -> Scores:
    """Score rows [n, 9] through the evaluator that defines what ONNX operators mean; returns [n]."""
    evaluator = ReferenceEvaluator(onnx.load_from_string(model))

    def evaluate(chunk: Rows) -> NDArray[np.float32]:
        # Its annotation also allows a dict, which only a run with intermediate values returns.
        outputs = cast(list[NDArray[np.float32]], evaluator.run([OUTPUT_NAME], {INPUT_NAME: chunk}))
        return outputs[0]

    return _score_chunks(evaluate, rows)


def require_agreement(what: str, found: Scores, expected: Scores, threshold: float) -> float:
    """Return the largest difference of two evaluators' scores [n].

    Raises ExportMismatchError if it passes SCORE_TOLERANCE or one row lands on another side of the threshold.
    """
    difference = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    flipped = int(np.count_nonzero((found >= threshold) != (expected >= threshold)))
    if difference > SCORE_TOLERANCE or flipped:
        raise ExportMismatchError(
            f"{what}: scores differ by up to {difference:.3g} (allowed {SCORE_TOLERANCE:g}) and {flipped} rows change "
            "side: do not ship this model; check the versions of skl2onnx, onnx and onnxruntime"
        )
    return difference


def _score_chunks(evaluate: Evaluate, rows: Rows) -> Scores:
    padding = -len(rows) % CHUNK_ROWS
    padded = np.pad(rows, ((0, padding), (0, 0)))
    starts = range(0, len(padded), CHUNK_ROWS)
    scores = [evaluate(padded[start : start + CHUNK_ROWS]).reshape(CHUNK_ROWS) for start in starts]
    return np.concatenate(scores)[: len(rows)] if scores else np.empty(0, dtype=np.float32)
