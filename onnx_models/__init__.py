"""Training, evaluation and export of the models that run on devices.

dataset     reads the sensor record and parts its rows
training    fits the forest and chooses its threshold
export      forest -> ONNX bytes; scores of two independent evaluators
lite        ONNX bytes -> the form for devices without ONNX Runtime
evaluation  recall and drop ratio with their intervals
card        what is written about a model
factory     all of it in order

Only what needs no learning library is named here: who asks on which side of the split a row lies should not wait
seconds for the libraries of training to load.
"""

from onnx_models.dataset import SensorRecord, Split, read_sensor_record, split_rows, training_row_count
from onnx_models.errors import DatasetError, ExportMismatchError, ModelTooWeakError, UnsupportedGraphError

__all__ = [
    "DatasetError",
    "ExportMismatchError",
    "ModelTooWeakError",
    "SensorRecord",
    "Split",
    "UnsupportedGraphError",
    "read_sensor_record",
    "split_rows",
    "training_row_count",
]
