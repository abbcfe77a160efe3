"""Errors of the model factory; all of them need a person, because the same data gives the same model again.

OperatorMustActError
├── DatasetError          the sensor file is not the one that we know how to read
├── ModelTooWeakError     no threshold reaches what the filter promises
├── ExportMismatchError   the exported graph does not say what the trained model says
└── UnsupportedGraphError a graph has no form for devices without its runtime
"""

from contracts.errors import OperatorMustActError


class DatasetError(OperatorMustActError):
    """A sensor record cannot be read as one."""


class ModelTooWeakError(OperatorMustActError):
    """A trained model misses the filter's targets on the rows kept for choosing its threshold."""


class ExportMismatchError(OperatorMustActError):
    """The exported graph and the trained model, or two evaluators of the graph, disagree on real rows."""


class UnsupportedGraphError(OperatorMustActError):
    """A graph cannot be written in the form for devices without ONNX Runtime."""
