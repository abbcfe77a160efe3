"""The filter of a stream from a bundle's folder, for devices with numpy and ONNX Runtime."""

from pathlib import Path

from contracts.bundle import Bundle
from edge_agent.adapters import named_files
from edge_agent.adapters.bundle_models import model_of
from edge_agent.adapters.onnx import OnnxScorer
from edge_agent.core.filter.filtering import Filter
from edge_agent.core.filter.rules import Rules
from edge_agent.errors import BundleError


def filter_of(bundle: Bundle, folder: Path, contract_id: str, device: str, epoch: int) -> Filter:
    """Return the filter of a contract's stream, its model loaded. Raises BundleError, ContractError."""
    source, stream = bundle.contract(contract_id), bundle.stream(contract_id)
    rules = Rules(stream.rules, source, device, epoch) if stream.rules else None
    aggregates = stream.otherwise == "aggregate"
    model = model_of(bundle, contract_id)
    if model is None:
        return Filter(rules=rules, aggregates=aggregates)
    if model.chunk_rows < 1:
        raise BundleError(f"model {model.id}@{model.version}: expected chunk_rows >= 1, found {model.chunk_rows}")
    data = named_files.read(folder, model.file, model.sha256, f"model {model.id}@{model.version}")
    return Filter(model, OnnxScorer(model, data), rules, aggregates=aggregates)
