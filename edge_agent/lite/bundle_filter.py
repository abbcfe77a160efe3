"""The filter of a stream from a bundle's folder, for devices without numpy and ONNX Runtime."""

from pathlib import Path

from contracts import lite_model
from contracts.bundle import Bundle, Model
from edge_agent.adapters import named_files
from edge_agent.adapters.bundle_models import model_of
from edge_agent.errors import BundleError
from edge_agent.lite.filtering import LiteFilter, LiteScorer
from edge_agent.lite.model import scorer_of
from edge_agent.lite.rules import LiteRules


def lite_filter_of(bundle: Bundle, folder: Path, contract_id: str, device: str, epoch: int) -> LiteFilter:
    """Return the filter of a contract's stream, its model loaded. Raises BundleError, ContractError."""
    source, stream = bundle.contract(contract_id), bundle.stream(contract_id)
    rules = LiteRules(stream.rules, source, device, epoch) if stream.rules else None
    aggregates = stream.otherwise == "aggregate"
    model = model_of(bundle, contract_id)
    if model is None:
        return LiteFilter(rules=rules, aggregates=aggregates)
    return LiteFilter(model, _scorer(bundle, folder, model), rules, aggregates=aggregates)


def _scorer(bundle: Bundle, folder: Path, model: Model) -> LiteScorer:
    label = f"model {model.id}@{model.version}"
    if model.lite_file is None or model.lite_sha256 is None:
        raise BundleError(
            f"bundle {bundle.version}: {label}: expected a lite_file for a device without ONNX Runtime, found none: "
            "export it, or give the device the full profile"
        )
    found = lite_model.decode(named_files.read(folder, model.lite_file, model.lite_sha256, label))
    if found.inputs != len(model.inputs):
        raise BundleError(
            f"bundle {bundle.version}: {label}: expected {len(model.inputs)} inputs in {model.lite_file}, "
            f"found {found.inputs}"
        )
    return scorer_of(found)
