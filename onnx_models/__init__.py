"""Training, evaluation and export of the models that run on devices.

dataset     reads the sensor record and parts its rows
training    fits the forest and chooses its threshold
export      forest -> ONNX bytes; scores of two independent evaluators
evaluation  recall and drop ratio with their intervals
card        what is written about a model
factory     all of it in order
"""

from onnx_models.card import ModelCard
from onnx_models.dataset import training_row_count
from onnx_models.errors import DatasetError, ExportMismatchError, ModelTooWeakError
from onnx_models.factory import TrainedFilter, build_filter, write_filter

__all__ = [
    "DatasetError",
    "ExportMismatchError",
    "ModelCard",
    "ModelTooWeakError",
    "TrainedFilter",
    "build_filter",
    "training_row_count",
    "write_filter",
]
