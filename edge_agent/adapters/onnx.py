"""The filter model in ONNX Runtime, which is imported only when there is a model: it costs 30 MB."""

import numpy as np
from numpy.typing import NDArray

from contracts.bundle import Model
from edge_agent.errors import BundleError


class OnnxScorer:
    """Implements `ports.Scorer` over one session with settings for little memory and no spinning threads."""

    def __init__(self, model: Model, data: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.enable_mem_pattern = False  # with chunks of one shape the arena alone needs least: 64 MB against 72-78
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises classes of its own, without a common base
            raise BundleError(f"model {model.id}@{model.version}: {model.file} is no ONNX model: {error}") from error
        inputs = [entry.name for entry in self._session.get_inputs()]
        outputs = [entry.name for entry in self._session.get_outputs()]
        if inputs != ["rows"] or "score" not in outputs:
            raise BundleError(
                f"model {model.id}@{model.version}: expected input 'rows' and output 'score', "
                f"found {inputs} and {outputs}"
            )

    def scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        (scores,) = self._session.run(["score"], {"rows": rows})
        flat: NDArray[np.float32] = np.asarray(scores, dtype=np.float32).reshape(-1)
        return flat
